// batch_norm_act, forward and backward: four passes over memory, and the arithmetic between them. README.md of
// ops/batch_norm_act derives it.
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

// ------------------------------------------------------------------- between the passes, on (B, C) and smaller tensors
// The same stands in ops/batch_norm_act/stepwise.py for the GPU. Clip b is in split b mod S. Per channel all is reckoned
// in double, the layers of the squeeze-excitation in A.

struct Sizes {
    int64_t batch, channels, splits, hidden, count;  // hidden: 0 without a squeeze-excitation

    int64_t rows() const { return batch * channels; }
    double clips() const { return static_cast<double>(batch / splits); }           // of a split
    double positions() const { return static_cast<double>(max_of(count, 1)); }
};

// What the caller gives, all of A: (C,), (C,), (H, C), (H,), (C, H), (C,), (B,).
template <class A>
struct Parameters {
    const A *weight, *bias, *fc1, *fc1_bias, *fc2, *fc2_bias, *clip_scale;
};

template <class A> SACCADE_INLINE double wide(A x) { return static_cast<double>(x); }

// Scratch memory handed out piece by piece.
class Pieces {
   public:
    explicit Pieces(int64_t values) : scratch_(values * 8), next_(0) {}
    bool ok() const { return scratch_.ok(); }
    template <class P> P* take(int64_t values) {
        P* piece = reinterpret_cast<P*>(scratch_.as<double>() + next_);
        next_ += values;
        return piece;
    }

   private:
    Scratch scratch_;
    int64_t next_;
};

// Mean and biased variance (S, C) of each split's clips together, from those of each clip.
template <class A>
void join_clips(const A* clip_mean, const A* m2, A* mean, A* var, double* work, const Sizes& n) {
    double *middle = work, *squares = work + n.channels;
    for (int64_t s = 0; s < n.splits; ++s) {
        for (int64_t k = 0; k < n.channels; ++k) middle[k] = squares[k] = 0;
        for (int64_t b = s; b < n.batch; b += n.splits)
            for (int64_t k = 0; k < n.channels; ++k) middle[k] += wide(clip_mean[b * n.channels + k]);
        for (int64_t k = 0; k < n.channels; ++k) middle[k] /= n.clips();
        for (int64_t b = s; b < n.batch; b += n.splits)
            for (int64_t k = 0; k < n.channels; ++k) {
                const double away = wide(clip_mean[b * n.channels + k]) - middle[k];
                squares[k] += wide(m2[b * n.channels + k]) + n.positions() * away * away;
            }
        for (int64_t k = 0; k < n.channels; ++k) {
            mean[s * n.channels + k] = static_cast<A>(middle[k]);
            var[s * n.channels + k] = static_cast<A>(squares[k] / (n.clips() * n.positions()));
        }
    }
}

// 1 / sqrt(var + eps) and weight times that, (S, C).
template <class A>
void slopes(const A* weight, const A* var, double eps, double* inv_std, double* slope, const Sizes& n) {
    for (int64_t s = 0; s < n.splits; ++s)
        for (int64_t k = 0; k < n.channels; ++k) {
            const int64_t i = s * n.channels + k;
            inv_std[i] = 1 / __builtin_sqrt(wide(var[i]) + eps);
            slope[i] = wide(weight[k]) * inv_std[i];
        }
}

// Scale and shift (B, C) that norm, gate and clip scale make together; `factor` becomes that of the last two.
template <class A>
void affine(const Parameters<A>& p, const A* mean, const double* slope, const A* gate, A* factor, A* scale, A* shift,
            const Sizes& n) {
    for (int64_t b = 0; b < n.batch; ++b) {
        const int64_t row = b * n.channels, split = b % n.splits * n.channels;
        const A times = p.clip_scale != nullptr ? p.clip_scale[b] : 1;
        for (int64_t k = 0; k < n.channels; ++k) factor[row + k] = times;
        if (gate != nullptr)
            for (int64_t k = 0; k < n.channels; ++k) factor[row + k] *= gate[row + k];
        for (int64_t k = 0; k < n.channels; ++k) {
            const double f = wide(factor[row + k]), a = slope[split + k];
            scale[row + k] = static_cast<A>(f * a);
            shift[row + k] = static_cast<A>(f * (wide(p.bias[k]) - a * wide(mean[split + k])));
        }
    }
}

template <class A>
A dot(const A* a, const A* b, int64_t length) {
    constexpr int N = Vec<A>::N;
    typename Vec<A>::V sum = splat<A>(0);
    int64_t i = 0;
    for (; i + N <= length; i += N) sum += load(a + i) * load(b + i);
    if (i < length) sum += load_part(a + i, static_cast<int>(length - i)) * load_part(b + i, static_cast<int>(length - i));
    return sum_of<A>(sum);
}

template <class A>
SACCADE_INLINE void add_times(A* sum, const A* values, A times, int64_t length) {
    for (int64_t i = 0; i < length; ++i) sum[i] += times * values[i];
}

// The mean of norm(x) over T, H, W, (B, C), and the hidden layer made of it, (B, H).
template <class A>
void squeeze(const Parameters<A>& p, const A* clip_mean, const A* mean, const double* slope, A* squeezed, A* hidden,
             const Sizes& n) {
    for (int64_t b = 0; b < n.batch; ++b) {
        A* row = squeezed + b * n.channels;
        const int64_t split = b % n.splits * n.channels;
        for (int64_t k = 0; k < n.channels; ++k)
            row[k] = static_cast<A>(
                slope[split + k] * (wide(clip_mean[b * n.channels + k]) - wide(mean[split + k])) + wide(p.bias[k]));
        for (int64_t h = 0; h < n.hidden; ++h) {
            const A u = p.fc1_bias[h] + dot(p.fc1 + h * n.channels, row, n.channels);
            hidden[b * n.hidden + h] = u <= 0 ? 0 : u;  // NaN stays
        }
    }
}

template <class A>
void excite(const Parameters<A>& p, const A* hidden, A* gate, const Sizes& n) {
    constexpr int N = Vec<A>::N;
    for (int64_t b = 0; b < n.batch; ++b)
        for (int64_t k = 0; k < n.channels; ++k)
            gate[b * n.channels + k] = p.fc2_bias[k] + dot(p.fc2 + k * n.hidden, hidden + b * n.hidden, n.hidden);
    for (int64_t i = 0; i < n.rows(); i += N) {
        const int part = static_cast<int>(min_of(N, n.rows() - i));
        typename Vec<A>::V u[1] = {load_part(gate + i, part == N ? 0 : part)}, s[1];
        if (part == N) u[0] = load(gate + i);
        sigmoid<A>(u, s);
        part == N ? store(gate + i, s[0]) : store_part(gate + i, s[0], part);
    }
}

// From grad2 (B, C), the gradient before the sigmoid, those of the four parameters and of the squeezed means (B, C).
template <class A>
void excite_backward(const Parameters<A>& p, const A* grad2, const A* squeezed, const A* hidden, A* grad1,
                     A* const (&grads)[4], A* grad_mean, const Sizes& n) {
    const int64_t C = n.channels, H = n.hidden;
    A *fc1 = grads[0], *fc1_bias = grads[1], *fc2 = grads[2], *fc2_bias = grads[3];
    memset(fc1, 0, static_cast<size_t>(H * C) * sizeof(A));
    memset(fc1_bias, 0, static_cast<size_t>(H) * sizeof(A));
    memset(fc2, 0, static_cast<size_t>(H * C) * sizeof(A));
    memset(fc2_bias, 0, static_cast<size_t>(C) * sizeof(A));
    memset(grad1, 0, static_cast<size_t>(n.batch * H) * sizeof(A));
    memset(grad_mean, 0, static_cast<size_t>(n.rows()) * sizeof(A));
    for (int64_t b = 0; b < n.batch; ++b) {
        const A *own2 = grad2 + b * C, *own_hidden = hidden + b * H;
        A* own1 = grad1 + b * H;
        for (int64_t k = 0; k < C; ++k) {
            add_times(own1, p.fc2 + k * H, own2[k], H);
            add_times(fc2 + k * H, own_hidden, own2[k], H);
        }
        add_times<A>(fc2_bias, own2, 1, C);
        for (int64_t h = 0; h < H; ++h) {
            if (own_hidden[h] <= 0) own1[h] = 0;
            add_times(fc1 + h * C, squeezed + b * C, own1[h], C);
            add_times(grad_mean + b * C, p.fc1 + h * C, own1[h], C);
        }
        add_times<A>(fc1_bias, own1, 1, H);
    }
}

// What the last pass needs, Q and R (B, C), and the gradients of weight and bias (C,), from the sums over each clip.
template <class A>
struct Finish {
    const A *sum_g, *sum_gx, *factor, *mean, *clip_mean, *grad_mean;  // the last two: null without a squeeze
    const double *inv_std, *slope;
    A *q, *r, *grad_weight, *grad_bias;
    double* work;  // 4 C
    bool by_batch;
    Sizes n;

    void operator()() const {
        double *all_x = work + 2 * n.channels, *all = work + 3 * n.channels;
        for (int64_t k = 0; k < n.channels; ++k) all_x[k] = all[k] = 0;
        for (int64_t s = 0; s < n.splits; ++s) {
            sums_of(s);
            coefficients_of(s);
            for (int64_t k = 0; k < n.channels; ++k) all[k] += work[k], all_x[k] += work[n.channels + k];
        }
        for (int64_t k = 0; k < n.channels; ++k) {
            grad_weight[k] = static_cast<A>(all_x[k]);
            grad_bias[k] = static_cast<A>(all[k]);
        }
    }

    // Gradients of bias and weight that come from this split.
    void sums_of(int64_t s) const {
        double *z = work, *zx = work + n.channels;
        for (int64_t k = 0; k < n.channels; ++k) z[k] = zx[k] = 0;
        for (int64_t b = s; b < n.batch; b += n.splits) {
            const int64_t row = b * n.channels;
            for (int64_t k = 0; k < n.channels; ++k) {
                z[k] += wide(factor[row + k]) * wide(sum_g[row + k]);
                zx[k] += wide(factor[row + k]) * wide(sum_gx[row + k]);
            }
            if (grad_mean == nullptr) continue;
            for (int64_t k = 0; k < n.channels; ++k) {
                z[k] += wide(grad_mean[row + k]);
                zx[k] += wide(grad_mean[row + k]) * (wide(clip_mean[row + k]) - wide(mean[s * n.channels + k]));
            }
        }
        for (int64_t k = 0; k < n.channels; ++k) zx[k] *= inv_std[s * n.channels + k];
    }

    void coefficients_of(int64_t s) const {
        const double *z = work, *zx = work + n.channels, *own = slope + s * n.channels, *inv = inv_std + s * n.channels;
        const double share = by_batch ? 1 / (n.clips() * n.positions()) : 0;
        for (int64_t b = s; b < n.batch; b += n.splits)
            for (int64_t k = 0; k < n.channels; ++k) {
                const int64_t i = b * n.channels + k;
                const double slant = -own[k] * inv[k] * zx[k] * share;
                const double flat = grad_mean != nullptr ? wide(grad_mean[i]) / n.positions() : 0;
                q[i] = static_cast<A>(own[k] * (flat - z[k] * share) - slant * wide(mean[s * n.channels + k]));
                r[i] = static_cast<A>(slant);
            }
    }
};

// ----------------------------------------------------------------------------------------------------- the whole of it

template <class T>
struct Norm {
    using A = Acc<T>;
    Parameters<A> p;
    Sizes n;
    Layout l;
    double eps;
    bool by_batch;
    int64_t threads;

    // mean, var: written if by_batch, else read. clip_mean, gate: with a squeeze-excitation, else null.
    template <int ACT>
    int forward(const T* x, const T* residual, A* mean, A* var, A* clip_mean, A* gate, T* y) const {
        const int64_t rows = n.rows(), both = n.splits * n.channels;
        Pieces pieces(6 * rows + 2 * both + 2 * n.channels + n.batch * n.hidden);
        if (!pieces.ok()) return SACCADE_NO_MEMORY;
        A *scale = pieces.take<A>(rows), *shift = pieces.take<A>(rows), *factor = pieces.take<A>(rows);
        A *m2 = pieces.take<A>(rows), *own_mean = pieces.take<A>(rows);
        double *inv_std = pieces.take<double>(both), *slope = pieces.take<double>(both);
        double* work = pieces.take<double>(2 * n.channels);
        if (by_batch || n.hidden > 0) {
            if (clip_mean == nullptr) clip_mean = own_mean;
            const int code = row_stats(x, clip_mean, m2, l, threads);
            if (code != SACCADE_OK) return code;
        }
        if (by_batch) join_clips(clip_mean, m2, mean, var, work, n);
        slopes(p.weight, var, eps, inv_std, slope, n);
        if (n.hidden > 0) {
            A *squeezed = pieces.take<A>(rows), *hidden = pieces.take<A>(n.batch * n.hidden);
            squeeze(p, clip_mean, mean, slope, squeezed, hidden, n);
            excite(p, hidden, gate, n);
        }
        affine(p, mean, slope, gate, factor, scale, shift, n);
        if (residual == nullptr) return run(AffineAct<T, ACT, false>{{scale, shift}, x, nullptr, y}, l, threads);
        return run(AffineAct<T, ACT, true>{{scale, shift}, x, residual, y}, l, threads);
    }

    struct Gradients {
        T *x, *g;  // g: null without extra
        A *weight, *bias, *fc[4];
    };

    template <int ACT>
    int backward(const T* grad_y, const T* x, const T* extra, const A* mean, const A* var, const A* clip_mean,
                 const A* gate, const Gradients& grads) const {
        const int64_t rows = n.rows(), both = n.splits * n.channels, layer = n.batch * n.hidden;
        Pieces pieces(11 * rows + 2 * both + 4 * n.channels + 2 * layer);
        if (!pieces.ok()) return SACCADE_NO_MEMORY;
        A *scale = pieces.take<A>(rows), *shift = pieces.take<A>(rows), *factor = pieces.take<A>(rows);
        A *center = pieces.take<A>(rows), *sum_g = pieces.take<A>(rows), *sum_gx = pieces.take<A>(rows);
        A *q = pieces.take<A>(rows), *r = pieces.take<A>(rows), *grad_mean = nullptr;
        double *inv_std = pieces.take<double>(both), *slope = pieces.take<double>(both);
        double* work = pieces.take<double>(4 * n.channels);
        slopes(p.weight, var, eps, inv_std, slope, n);
        affine(p, mean, slope, gate, factor, scale, shift, n);
        for (int64_t b = 0; b < n.batch; ++b)
            memcpy(center + b * n.channels, mean + b % n.splits * n.channels,
                   static_cast<size_t>(n.channels) * sizeof(A));
        const int code =
            extra == nullptr
                ? run_sums(AffineActReduce<T, ACT, false>{{scale, shift, center}, grad_y, x, nullptr, nullptr}, sum_g,
                           sum_gx, l, threads)
                : run_sums(AffineActReduce<T, ACT, true>{{scale, shift, center}, grad_y, x, extra, grads.g}, sum_g,
                           sum_gx, l, threads);
        if (code != SACCADE_OK) return code;
        if (n.hidden > 0) {
            A *squeezed = pieces.take<A>(rows), *grad2 = pieces.take<A>(rows);
            A *hidden = pieces.take<A>(layer), *grad1 = pieces.take<A>(layer);
            grad_mean = pieces.take<A>(rows);
            squeeze(p, clip_mean, mean, slope, squeezed, hidden, n);
            before_sigmoid(sum_g, sum_gx, slope, gate, grad2);
            excite_backward(p, grad2, squeezed, hidden, grad1, grads.fc, grad_mean, n);
        }
        Finish<A>{sum_g, sum_gx, factor, mean,         clip_mean,  grad_mean, inv_std,  slope,
                  q,     r,      grads.weight, grads.bias, work, by_batch,  n}();
        if (extra == nullptr)
            return run(AffineActBackward<T, ACT>{{scale, shift, scale, q, r}, grad_y, x, grads.x}, l, threads);
        return run(AffineActBackward<T, NONE>{{scale, shift, scale, q, r}, grads.g, x, grads.x}, l, threads);
    }

    // The gradient of the gate is the sum over T, H, W of g * norm(x).
    void before_sigmoid(const A* sum_g, const A* sum_gx, const double* slope, const A* gate, A* grad2) const {
        for (int64_t b = 0; b < n.batch; ++b) {
            const double times = p.clip_scale != nullptr ? wide(p.clip_scale[b]) : 1;
            for (int64_t k = 0; k < n.channels; ++k) {
                const int64_t i = b * n.channels + k;
                const double a = slope[b % n.splits * n.channels + k], s = wide(gate[i]);
                const double grad_gate = times * (a * wide(sum_gx[i]) + wide(p.bias[k]) * wide(sum_g[i]));
                grad2[i] = static_cast<A>(grad_gate * s * (1 - s));
            }
        }
    }
};

// f(T{}, Constant<activation>{}) for the element type and the activation
template <int V> struct Constant { static constexpr int value = V; };

template <class T, class F>
int with_activation(int64_t activation, F&& f) {
    switch (activation) {
        case NONE: return f(T{}, Constant<NONE>{});
        case RELU: return f(T{}, Constant<RELU>{});
        case SILU: return f(T{}, Constant<SILU>{});
        default: return SACCADE_UNSUPPORTED;
    }
}

template <class F>
int with_types(int64_t dtype, int64_t activation, F&& f) {
    switch (dtype) {
        case SACCADE_FLOAT32: return with_activation<float>(activation, f);
        case SACCADE_FLOAT64: return with_activation<double>(activation, f);
        case SACCADE_BFLOAT16: return with_activation<BFloat16>(activation, f);
        case SACCADE_FLOAT16: return with_activation<Float16>(activation, f);
        default: return SACCADE_UNSUPPORTED;
    }
}

template <class T> const T* in(const void* p) { return static_cast<const T*>(p); }
template <class T> T* out(void* p) { return static_cast<T*>(p); }

}  // namespace

// Parameters and options of both functions, in the order of native._settings.
#define SACCADE_NORM_SETTINGS                                                                                         \
    const void *weight, const void *bias, const void *fc1, const void *fc1_bias, const void *fc2,                     \
        const void *fc2_bias, const void *clip_scale, double eps, int64_t by_batch, int64_t activation, int64_t dtype, \
        int64_t channels_last, int64_t batch, int64_t channels, int64_t splits, int64_t hidden, int64_t count,        \
        int64_t threads
#define SACCADE_NORM(T)                                                                                               \
    Norm<T> {                                                                                                         \
        {in<Acc<T>>(weight), in<Acc<T>>(bias), in<Acc<T>>(fc1), in<Acc<T>>(fc1_bias), in<Acc<T>>(fc2),                \
         in<Acc<T>>(fc2_bias), in<Acc<T>>(clip_scale)},                                                               \
            Sizes{batch, channels, splits, hidden, count}, layout_of<Acc<T>>(channels_last, batch, channels, count),  \
            eps, by_batch != 0, threads                                                                               \
    }

SACCADE_EXPORT(batch_norm_act_forward)
(const void* x, const void* residual, void* mean, void* var, void* clip_mean, void* gate, void* y,
 SACCADE_NORM_SETTINGS) {
    return with_types(dtype, activation, [&](auto t, auto act) -> int {
        using T = decltype(t);
        using A = Acc<T>;
        return SACCADE_NORM(T).template forward<act.value>(in<T>(x), in<T>(residual), out<A>(mean), out<A>(var),
                                                           out<A>(clip_mean), out<A>(gate), out<T>(y));
    });
}

SACCADE_EXPORT(batch_norm_act_backward)
(const void* grad_y, const void* x, const void* extra, const void* mean, const void* var, const void* clip_mean,
 const void* gate, void* grad_x, void* g, void* grad_weight, void* grad_bias, void* grad_fc1, void* grad_fc1_bias,
 void* grad_fc2, void* grad_fc2_bias, SACCADE_NORM_SETTINGS) {
    return with_types(dtype, activation, [&](auto t, auto act) -> int {
        using T = decltype(t);
        using A = Acc<T>;
        const typename Norm<T>::Gradients grads{
            out<T>(grad_x), out<T>(g), out<A>(grad_weight), out<A>(grad_bias),
            {out<A>(grad_fc1), out<A>(grad_fc1_bias), out<A>(grad_fc2), out<A>(grad_fc2_bias)}};
        return SACCADE_NORM(T).template backward<act.value>(in<T>(grad_y), in<T>(x), in<T>(extra), in<A>(mean),
                                                            in<A>(var), in<A>(clip_mean), in<A>(gate), grads);
    });
}
