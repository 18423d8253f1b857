// Runs a kernel of batch_norm_act over a tensor and adds up its sums.
//
// A tensor is a number of rows of (positions x channels). In channels-last-3d layout a row is a clip; in contiguous
// layout it is one channel of one clip, with a single "channel". A coefficient per channel repeats along the row: a
// table holds it written out over a period that is a multiple of both the channels and the vector, so that all vectors
// are whole.
//
// Rows are cut into chunks whose length depends on the shape alone. Within a chunk sums run in vectors of Acc<T>; the
// sums of chunks are added in double, in order: the same bits for any number of threads.
#pragma once

#include "batch_norm_act_kernels.h"

namespace {

constexpr int64_t LONGEST_PERIOD = 4096, SHORTEST_PERIOD = 256, SINGLE_PERIOD = 64;  // values
constexpr int64_t CHUNK = 65536, TASK = 32768;                                       // values
constexpr int64_t LONGEST_SUM = 256;  // additions to one lane before double takes over

struct Layout {
    int64_t rows, channels, count;  // count: positions of a row
    int64_t period;                 // values of a table
    int64_t chunk, chunks;          // positions of a chunk; chunks of a row
    int64_t grouped, tasks;         // chunks that one task takes; tasks

    int64_t num_chunks() const { return rows * chunks; }
    int64_t size() const { return rows * channels * count; }
};

template <class A>
Layout layout_of(int64_t channels_last, int64_t batch, int64_t channels, int64_t count) {
    Layout l{batch, channels, count, 0, 0, 0, 0, 0};
    if (!channels_last) l.rows = batch * channels, l.channels = 1;
    if (l.size() == 0) return l;
    int64_t multiple = l.channels;
    while (multiple % Vec<A>::N != 0) multiple += l.channels;
    if (multiple > LONGEST_PERIOD) multiple = l.channels;  // then each period ends in a vector that is not whole
    l.period = round_up(l.channels == 1 ? SINGLE_PERIOD : SHORTEST_PERIOD, multiple);
    l.chunk = min_of(max_of(CHUNK / l.period, 1), LONGEST_SUM) * (l.period / l.channels);
    l.chunks = (count + l.chunk - 1) / l.chunk;
    l.grouped = max_of(1, TASK / (min_of(count, l.chunk) * l.channels));
    l.tasks = (l.num_chunks() + l.grouped - 1) / l.grouped;
    return l;
}

template <class A>
void write_out(A* table, const A* values, const Layout& l) {
    if (l.channels == 1) {
        for (int64_t j = 0; j < l.period; ++j) table[j] = *values;
    } else {
        for (int64_t j = 0; j < l.period; j += l.channels)
            memcpy(table + j, values, static_cast<size_t>(l.channels) * sizeof(A));
    }
}

template <class A>
void fold(double* out, const A* sums, const Layout& l) {
    for (int64_t k = 0; k < l.channels; ++k) out[k] = 0;
    for (int64_t j = 0; j < l.period; j += l.channels)
        for (int64_t k = 0; k < l.channels; ++k) out[k] += static_cast<double>(sums[j + k]);
}

// partial: (chunk, sum, channel).
template <class K>
void run_chunk(const K& kernel, const Layout& l, int64_t chunk, typename K::A* tables, double* partial) {
    using A = typename K::A;
    constexpr int N = Vec<A>::N;
    const int64_t row = chunk / l.chunks, first = chunk % l.chunks * l.chunk;
    const int64_t begin = (row * l.count + first) * l.channels;
    const int64_t length = min_of(l.chunk, l.count - first) * l.channels;
    const int64_t stride = round_up(l.period, N);
    A* sums = tables + K::COEFFICIENTS * stride;
    for (int i = 0; i < K::COEFFICIENTS; ++i)
        write_out(tables + i * stride, kernel.coefficients[i] + row * l.channels, l);
    memset(sums, 0, static_cast<size_t>(K::SUMS * stride) * sizeof(A));
    for (int64_t o = 0; o < length; o += l.period) {
        const int64_t span = min_of(l.period, length - o);
        int64_t j = 0;
        for (; j + K::VECTORS * N <= span; j += K::VECTORS * N)
            kernel.template step<K::VECTORS>(Whole{}, begin + o + j, tables + j, sums + j, stride);
        for (; j + N <= span; j += N) kernel.template step<1>(Whole{}, begin + o + j, tables + j, sums + j, stride);
        if (j < span)
            kernel.template step<1>(Part{static_cast<int>(span - j)}, begin + o + j, tables + j, sums + j, stride);
    }
    for (int i = 0; i < K::SUMS; ++i) fold(partial + (chunk * K::SUMS + i) * l.channels, sums + i * stride, l);
}

template <class K>
int run(const K& kernel, const Layout& l, int64_t threads, double* partial = nullptr) {
    using A = typename K::A;
    if (l.size() == 0) return SACCADE_OK;
    threads = max_of(1, min_of(threads, l.tasks));
    const int64_t space = (K::COEFFICIENTS + K::SUMS) * round_up(l.period, Vec<A>::N) + 64;  // 64: lines of their own
    Scratch scratch(threads * space * static_cast<int64_t>(sizeof(A)));
    if (!scratch.ok()) return SACCADE_NO_MEMORY;
    parallel(l.tasks, threads, [&](int64_t task, int thread) {
        const int64_t end = min_of((task + 1) * l.grouped, l.num_chunks());
        for (int64_t i = task * l.grouped; i < end; ++i)
            run_chunk(kernel, l, i, scratch.as<A>() + thread * space, partial);
    });
    return SACCADE_OK;
}

// Both sums of every row and channel, from its chunks: finish(index, first sum, second sum).
template <class F>
void join(const Layout& l, const double* partial, F&& finish) {
    for (int64_t row = 0; row < l.rows; ++row)
        for (int64_t k = 0; k < l.channels; ++k) {
            const double* p = partial + row * l.chunks * 2 * l.channels + k;
            double first = 0, second = 0;
            for (int64_t c = 0; c < l.chunks; ++c, p += 2 * l.channels) first += p[0], second += p[l.channels];
            finish(row * l.channels + k, first, second);
        }
}

// The mean of up to 64 neighbours in the middle of the row.
template <class T>
void guess_means(const T* x, const Layout& l, Acc<T>* means) {
    const int64_t samples = min_of(l.count, 64);
    for (int64_t row = 0; row < l.rows; ++row) {
        Acc<T>* mean = means + row * l.channels;
        const T* p = x + (row * l.count + (l.count - samples) / 2) * l.channels;
        for (int64_t k = 0; k < l.channels; ++k) mean[k] = 0;
        for (int64_t s = 0; s < samples; ++s)
            for (int64_t k = 0; k < l.channels; ++k) mean[k] += to_acc(*p++) / static_cast<Acc<T>>(samples);
    }
}

template <class T>
int row_stats(const T* x, Acc<T>* mean, Acc<T>* m2, const Layout& l, int64_t threads) {
    using A = Acc<T>;
    Scratch guesses(l.rows * l.channels * static_cast<int64_t>(sizeof(A)));
    Scratch sums(l.num_chunks() * 2 * l.channels * static_cast<int64_t>(sizeof(double)));
    if (!guesses.ok() || !sums.ok()) return SACCADE_NO_MEMORY;
    A* guess = guesses.as<A>();
    guess_means(x, l, guess);
    int code = run(RowStats<T>{{guess}, x}, l, threads, sums.as<double>());
    if (code != SACCADE_OK) return code;
    join(l, sums.as<double>(), [&](int64_t i, double sum, double squares) {  // of the distances from the guess
        const double count = static_cast<double>(l.count), away = l.count > 0 ? sum / count : 0;
        const double about_mean = squares - count * away * away;
        mean[i] = static_cast<A>(static_cast<double>(guess[i]) + away);
        m2[i] = static_cast<A>(about_mean < 0 ? 0 : about_mean);
    });
    return SACCADE_OK;
}

template <class K>
int run_sums(const K& kernel, typename K::A* first, typename K::A* second, const Layout& l, int64_t threads) {
    using A = typename K::A;
    Scratch sums(l.num_chunks() * 2 * l.channels * static_cast<int64_t>(sizeof(double)));
    if (!sums.ok()) return SACCADE_NO_MEMORY;
    int code = run(kernel, l, threads, sums.as<double>());
    if (code != SACCADE_OK) return code;
    join(l, sums.as<double>(), [&](int64_t i, double a, double b) {
        first[i] = static_cast<A>(a);
        second[i] = static_cast<A>(b);
    });
    return SACCADE_OK;
}

}  // namespace
