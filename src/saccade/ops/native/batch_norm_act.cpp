// The four passes over memory of batch_norm_act. What they compute stands in ops/batch_norm_act/native.py.
//
// A tensor is a number of rows of (positions x channels). In channels-last-3d layout a row is a clip; in contiguous
// layout it is one channel of one clip, with a single "channel". A coefficient per channel repeats along the row: a
// table holds it written out over a period that is a multiple of both the channels and the vector, so that all vectors
// are whole.
//
// Rows are cut into chunks whose length depends on the shape alone. Within a chunk sums run in vectors of Acc<T>; those
// of the chunks are joined in double, in order: the same bits whatever the number of threads.

#include "vec_exp.h"

namespace {

enum Activation { NONE = 0, RELU = 1, SILU = 2 };

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

// A whole vector, or the first n values of one: the rest reads as 0 and must be kept out of sums.
struct Whole {
    template <class T> SACCADE_INLINE typename Vec<Acc<T>>::V read(const T* p) const { return load(p); }
    template <class T> SACCADE_INLINE void write(T* p, typename Vec<Acc<T>>::V v) const { store(p, v); }
    template <class A> SACCADE_INLINE void add(A* sum, typename Vec<A>::V v) const { store(sum, load(sum) + v); }
};
struct Part {
    int n;
    template <class T> SACCADE_INLINE typename Vec<Acc<T>>::V read(const T* p) const { return load_part(p, n); }
    template <class T> SACCADE_INLINE void write(T* p, typename Vec<Acc<T>>::V v) const { store_part(p, v, n); }
    template <class A> SACCADE_INLINE void add(A* sum, typename Vec<A>::V v) const {
        store_part(sum, load_part(sum, n) + v, n);
    }
};

template <class A, int ACT, int U>
SACCADE_INLINE void activate(typename Vec<A>::V (&u)[U]) {
    if constexpr (ACT == RELU) {
        SACCADE_EACH u[k] = u[k] <= 0 ? splat<A>(0) : u[k];  // NaN stays
    } else if constexpr (ACT == SILU) {
        typename Vec<A>::V s[U];
        sigmoid<A>(u, s);
        SACCADE_EACH u[k] *= s[k];
    }
}

// g *= act'(u)
template <class A, int ACT, int U>
SACCADE_INLINE void derive(typename Vec<A>::V (&g)[U], const typename Vec<A>::V (&u)[U]) {
    if constexpr (ACT == RELU) {
        SACCADE_EACH g[k] = u[k] <= 0 ? splat<A>(0) : g[k];
    } else if constexpr (ACT == SILU) {
        typename Vec<A>::V s[U];
        sigmoid<A>(u, s);
        SACCADE_EACH g[k] *= s[k] * (u[k] * (1 - s[k]) + 1);
    }
}

// ------------------------------------------------------------------------------------------------------- the kernels
// Each names its coefficients, (B, C) each, and how many sums it makes. step() does U vectors: those at value i of the
// big tensors, with c the tables at the place that belongs to it, `stride` apart, and so the sums.

// As many as the registers hold.
constexpr int vectors_of(int activation) { return activation == SILU && VECTOR_BYTES == 64 ? 4 : 2; }

template <class T>
struct RowStats {
    using A = Acc<T>;
    static constexpr int COEFFICIENTS = 1, SUMS = 2, VECTORS = 2, N = Vec<A>::N;
    const A* coefficients[COEFFICIENTS];  // a value near the mean: differences from it are small
    const T* x;

    template <int U, class IO>
    SACCADE_INLINE void step(IO io, int64_t i, const A* c, A* sums, int64_t stride) const {
        typename Vec<A>::V d[U];
        SACCADE_EACH d[k] = io.read(x + i + k * N) - load(c + k * N);
        SACCADE_EACH io.add(sums + k * N, d[k]);
        SACCADE_EACH io.add(sums + stride + k * N, d[k] * d[k]);
    }
};

template <class T, int ACT, bool RESIDUAL>
struct AffineAct {
    using A = Acc<T>;
    static constexpr int COEFFICIENTS = 2, SUMS = 0, VECTORS = vectors_of(ACT), N = Vec<A>::N;
    const A* coefficients[COEFFICIENTS];  // scale, shift
    const T* x;
    const T* residual;
    T* y;

    template <int U, class IO>
    SACCADE_INLINE void step(IO io, int64_t i, const A* c, A*, int64_t stride) const {
        typename Vec<A>::V u[U];
        SACCADE_EACH u[k] = io.read(x + i + k * N) * load(c + k * N) + load(c + stride + k * N);
        if constexpr (RESIDUAL) {
            SACCADE_EACH u[k] += io.read(residual + i + k * N);
        }
        activate<A, ACT>(u);
        SACCADE_EACH io.write(y + i + k * N, u[k]);
    }
};

template <class T, int ACT, bool EXTRA>
struct AffineActReduce {
    using A = Acc<T>;
    static constexpr int COEFFICIENTS = 3, SUMS = 2, VECTORS = vectors_of(ACT), N = Vec<A>::N;
    const A* coefficients[COEFFICIENTS];  // scale, shift, center
    const T* grad_y;
    const T* x;
    const T* extra;
    T* grad;

    template <int U, class IO>
    SACCADE_INLINE void step(IO io, int64_t i, const A* c, A* sums, int64_t stride) const {
        typename Vec<A>::V v[U], u[U], g[U];
        SACCADE_EACH v[k] = io.read(x + i + k * N);
        SACCADE_EACH u[k] = ACT == RELU && EXTRA ? io.read(extra + i + k * N)
                                                 : v[k] * load(c + k * N) + load(c + stride + k * N);
        if constexpr (ACT == SILU && EXTRA) {
            SACCADE_EACH u[k] += io.read(extra + i + k * N);
        }
        SACCADE_EACH g[k] = io.read(grad_y + i + k * N);
        derive<A, ACT>(g, u);
        if constexpr (EXTRA) {
            SACCADE_EACH io.write(grad + i + k * N, g[k]);
        }
        SACCADE_EACH io.add(sums + k * N, g[k]);
        SACCADE_EACH io.add(sums + stride + k * N, g[k] * (v[k] - load(c + 2 * stride + k * N)));
    }
};

template <class T, int ACT>
struct AffineActBackward {
    using A = Acc<T>;
    static constexpr int COEFFICIENTS = 5, SUMS = 0, VECTORS = vectors_of(ACT), N = Vec<A>::N;
    const A* coefficients[COEFFICIENTS];  // scale, shift, p, q, r
    const T* grad_y;
    const T* x;
    T* grad_x;

    template <int U, class IO>
    SACCADE_INLINE void step(IO io, int64_t i, const A* c, A*, int64_t stride) const {
        typename Vec<A>::V v[U], u[U], g[U];
        SACCADE_EACH v[k] = io.read(x + i + k * N);
        SACCADE_EACH u[k] = v[k] * load(c + k * N) + load(c + stride + k * N);
        SACCADE_EACH g[k] = io.read(grad_y + i + k * N);
        derive<A, ACT>(g, u);
        SACCADE_EACH v[k] = v[k] * load(c + 4 * stride + k * N) + load(c + 3 * stride + k * N);
        SACCADE_EACH io.write(grad_x + i + k * N, g[k] * load(c + 2 * stride + k * N) + v[k]);
    }
};

// --------------------------------------------------------------------------------------------------- running a kernel

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

// Both sums of every row and channel, out of those of its chunks: finish(index, first sum, second sum).
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

// Tensors as they come from Python, and what their elements are.
struct Call {
    int64_t activation, dtype, channels_last, batch, channels, count, threads;

    // f(T{}, Layout) for the element type
    template <class F>
    int with_type(F&& f) const {
        switch (dtype) {
            case SACCADE_FLOAT32: return f(float{}, layout_of<float>(channels_last, batch, channels, count));
            case SACCADE_FLOAT64: return f(double{}, layout_of<double>(channels_last, batch, channels, count));
            case SACCADE_BFLOAT16: return f(BFloat16{}, layout_of<float>(channels_last, batch, channels, count));
            case SACCADE_FLOAT16: return f(Float16{}, layout_of<float>(channels_last, batch, channels, count));
            default: return SACCADE_UNSUPPORTED;
        }
    }

    // f(T{}, Layout, Constant<activation>{}) for the element type and the activation
    template <int V> struct Constant { static constexpr int value = V; };
    template <class F>
    int with_activation(F&& f) const {
        return with_type([&](auto t, const Layout& l) -> int {
            switch (activation) {
                case NONE: return f(t, l, Constant<NONE>{});
                case RELU: return f(t, l, Constant<RELU>{});
                case SILU: return f(t, l, Constant<SILU>{});
                default: return SACCADE_UNSUPPORTED;
            }
        });
    }
};

template <class T> const T* in(const void* p) { return static_cast<const T*>(p); }
template <class T> T* out(void* p) { return static_cast<T*>(p); }

}  // namespace

SACCADE_EXPORT(row_stats)
(const void* x, void* mean, void* m2, int64_t activation, int64_t dtype, int64_t channels_last, int64_t batch,
 int64_t channels, int64_t count, int64_t threads) {
    return Call{activation, dtype, channels_last, batch, channels, count, threads}.with_type(
        [&](auto t, const Layout& l) -> int {
            using T = decltype(t);
            return row_stats(in<T>(x), out<Acc<T>>(mean), out<Acc<T>>(m2), l, threads);
        });
}

SACCADE_EXPORT(affine_act)
(const void* x, const void* residual, const void* scale, const void* shift, void* y, int64_t activation, int64_t dtype,
 int64_t channels_last, int64_t batch, int64_t channels, int64_t count, int64_t threads) {
    return Call{activation, dtype, channels_last, batch, channels, count, threads}.with_activation(
        [&](auto t, const Layout& l, auto act) -> int {
            using T = decltype(t);
            using A = Acc<T>;
            if (residual == nullptr)
                return run(
                    AffineAct<T, act.value, false>{{in<A>(scale), in<A>(shift)}, in<T>(x), nullptr, out<T>(y)}, l,
                    threads);
            return run(
                AffineAct<T, act.value, true>{{in<A>(scale), in<A>(shift)}, in<T>(x), in<T>(residual), out<T>(y)}, l,
                threads);
        });
}

SACCADE_EXPORT(affine_act_reduce)
(const void* grad_y, const void* x, const void* extra, const void* scale, const void* shift, const void* center,
 void* sum_g, void* sum_gx, void* grad, int64_t activation, int64_t dtype, int64_t channels_last, int64_t batch,
 int64_t channels, int64_t count, int64_t threads) {
    return Call{activation, dtype, channels_last, batch, channels, count, threads}.with_activation(
        [&](auto t, const Layout& l, auto act) -> int {
            using T = decltype(t);
            using A = Acc<T>;
            A *first = out<A>(sum_g), *second = out<A>(sum_gx);
            if (extra == nullptr)
                return run_sums(AffineActReduce<T, act.value, false>{{in<A>(scale), in<A>(shift), in<A>(center)},
                                                                     in<T>(grad_y), in<T>(x), nullptr, nullptr},
                                first, second, l, threads);
            return run_sums(AffineActReduce<T, act.value, true>{{in<A>(scale), in<A>(shift), in<A>(center)},
                                                                in<T>(grad_y), in<T>(x), in<T>(extra), out<T>(grad)},
                            first, second, l, threads);
        });
}

SACCADE_EXPORT(affine_act_backward)
(const void* grad_y, const void* x, const void* scale, const void* shift, const void* p, const void* q, const void* r,
 void* grad_x, int64_t activation, int64_t dtype, int64_t channels_last, int64_t batch, int64_t channels, int64_t count,
 int64_t threads) {
    return Call{activation, dtype, channels_last, batch, channels, count, threads}.with_activation(
        [&](auto t, const Layout& l, auto act) -> int {
            using T = decltype(t);
            using A = Acc<T>;
            return run(AffineActBackward<T, act.value>{{in<A>(scale), in<A>(shift), in<A>(p), in<A>(q), in<A>(r)},
                                                       in<T>(grad_y), in<T>(x), out<T>(grad_x)},
                       l, threads);
        });
}
