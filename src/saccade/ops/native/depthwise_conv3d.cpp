// Depthwise 3-D convolution on dense NDHWC memory (channels-last-3d): forward, and both gradients in one pass.
//
// Registers hold one vector of channels at BLOCK neighbouring positions of a row; rows of the kernel window that lie
// outside the clip are skipped, positions outside a row read zeros. The backward pass walks over the positions of x:
// a vector of grad_y that has been loaded serves grad_x and grad_weight at once, and x, grad_y and grad_x each pass
// through memory once. Work is divided into bands of rows, small enough that the window stays in the second-level
// cache while it moves along T. Each task computes a partial sum of grad_weight; tasks depend on the shape only and
// partial sums are added in order, so the bits do not depend on the number of threads.
#include "vec.h"

namespace {

constexpr int BLOCK = VECTOR_BYTES == 64 ? 8 : 4;
constexpr int64_t WINDOW_BYTES = 512 * 1024;  // part of the second-level cache for a band's window
constexpr int64_t MAX_TASKS = 64;             // partial sums of grad_weight
constexpr int MAX_ROWS = 25;

struct Shape {
    int64_t batch, channels;
    int64_t in[3], out[3], kernel[3], stride[3], padding[3];
    int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

// Channels in vectors of N; where C is no multiple of N the last vector overlaps the one before.
template <class A>
struct Channels {
    static constexpr int N = Vec<A>::N;
    explicit Channels(int64_t c) : count(c), vectors((c + N - 1) / N) {}
    int64_t first(int64_t v) const { return max_of(0, min_of(v * N, count - N)); }
    // Of a vector's lanes, those that no earlier vector holds begin here.
    int64_t fresh(int64_t v) const { return v * N; }
    bool partial() const { return count < N; }
    int64_t count, vectors;
};

// (C, taps) to [vector][tap][N], in the type to compute in.
template <class T>
void pack_weight(const T* weight, Acc<T>* packed, const Channels<Acc<T>>& channels, int64_t taps) {
    constexpr int N = Vec<Acc<T>>::N;
    for (int64_t v = 0; v < channels.vectors; ++v)
        for (int64_t tap = 0; tap < taps; ++tap)
            for (int i = 0; i < N; ++i) {
                int64_t c = channels.first(v) + i;
                packed[(v * taps + tap) * N + i] = c < channels.count ? to_acc(weight[c * taps + tap]) : Acc<T>(0);
            }
}

// A row of the kernel window: where its data starts (first channel of the vector at hand comes on top) and its first tap.
template <class T>
struct Row { const T* data; int64_t tap; };

// Arguments of a row kernel: `rows` have `length` positions, the row to be written `size`.
template <class T>
struct Line {
    Row<T> rows[MAX_ROWS];
    int num_rows;
    const T* ahead;  // the row that the next row's window has and this one's has not; null: unknown
    int64_t length, size, channels, stride, padding;
    const T* zeros;
};

template <bool PART, class T>
SACCADE_INLINE typename Vec<Acc<T>>::V load_lanes(const T* p, int lanes) {
    if constexpr (PART) return load_part(p, lanes);
    else return load(p);
}

template <bool PART, class T>
SACCADE_INLINE void store_lanes(T* p, typename Vec<Acc<T>>::V v, int lanes) {
    if constexpr (PART) store_part(p, v, lanes);
    else store(p, v);
}

template <bool EDGE, class T>
SACCADE_INLINE const T* at(const T* row, int64_t position, int64_t length, int64_t channels, const T* zeros) {
    if constexpr (!EDGE) return row + position * channels;
    return static_cast<uint64_t>(position) < static_cast<uint64_t>(length) ? row + position * channels : zeros;
}

// Asks for `count` elements before they are needed, to read or to write them. The rows of a window lie far apart and are
// walked in short blocks, which the processor does not foresee. Any address may be asked for, also behind the end.
template <bool WRITE, class T>
SACCADE_INLINE void prefetch(const T* p, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(p + i, WRITE, 2);
}

// Outputs [start, start + B) of a row, one vector of channels. S is the stride, 0 for one known at run time.
template <class T, int K, int S, int B, bool EDGE, bool PART>
SACCADE_INLINE void forward_block(const Line<T>& line, int64_t start, int64_t c, const Acc<T>* weight, T* y, int lanes) {
    using V = typename Vec<Acc<T>>::V;
    constexpr int N = Vec<Acc<T>>::N;
    const int64_t stride = S ? S : line.stride;
    const int64_t first = start * stride - line.padding;
    V sum[B];
#pragma GCC unroll 16
    for (int i = 0; i < B; ++i) sum[i] = V{};
    for (int r = 0; r < line.num_rows; ++r) {
        const T* row = line.rows[r].data + c;
        V w[K];
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) w[k] = load(weight + (line.rows[r].tap + k) * N);
        constexpr int SPAN = S ? (B - 1) * S + K : K;
#pragma GCC unroll 32
        for (int l = 0; l < SPAN; ++l) {
            V x = load_lanes<PART>(at<EDGE>(row, first + l, line.length, line.channels, line.zeros), lanes);
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) {
                constexpr int STEP = S ? S : 1;
                int i = (l - k) / STEP;
                if (l >= k && (l - k) % STEP == 0 && i < B) sum[i] += x * w[k];
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < B; ++i)
        if (!EDGE || start + i < line.size) store_lanes<PART>(y + (start + i) * line.channels + c, sum[i], lanes);
}

// Positions [start, start + B) of a row of x, one vector of channels: grad_x of them, and what they add to
// grad_weight. start + padding is a multiple of S. grad_x may be null.
template <class T, int K, int S, int B, bool EDGE, bool PART>
SACCADE_INLINE void backward_block(const Line<T>& line, int64_t start, int64_t c, const T* x_row, const Acc<T>* weight,
                                   Acc<T>* grad_weight, T* grad_x, int lanes) {
    using V = typename Vec<Acc<T>>::V;
    constexpr int N = Vec<Acc<T>>::N;
    constexpr int STEP = S ? S : 1;
    constexpr int BEFORE = (K - 1) / STEP;  // outputs that reach the block and whose first tap lies before it
    constexpr int SPAN = S ? BEFORE + (B - 1) / STEP + 1 : K;
    V x[B], sum[B];
#pragma GCC unroll 16
    for (int i = 0; i < B; ++i) {
        x[i] = load_lanes<PART>(at<EDGE>(x_row + c, start + i, line.size, line.channels, line.zeros), lanes);
        sum[i] = V{};
    }
    for (int r = 0; r < line.num_rows; ++r) {
        const T* row = line.rows[r].data + c;
        const Acc<T>* w_row = weight + line.rows[r].tap * N;
        Acc<T>* grad_row = grad_weight + line.rows[r].tap * N;
        V w[K], grad_w[K];
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
            w[k] = load(w_row + k * N);
            grad_w[k] = load(grad_row + k * N);
        }
#pragma GCC unroll 32
        for (int l = 0; l < SPAN; ++l) {
            if constexpr (S == 0) {
                int64_t reach = start + line.padding - l;
                if (reach % line.stride) continue;
                V g = load_lanes<PART>(at<EDGE>(row, reach / line.stride, line.length, line.channels, line.zeros), lanes);
                sum[0] += g * w[l];
                grad_w[l] += g * x[0];
            } else {
                int64_t position = (start + line.padding) / STEP + l - BEFORE;
                V g = load_lanes<PART>(at<EDGE>(row, position, line.length, line.channels, line.zeros), lanes);
#pragma GCC unroll 8
                for (int k = 0; k < K; ++k) {
                    int i = (l - BEFORE) * STEP + k;
                    if (i >= 0 && i < B) {
                        sum[i] += g * w[k];
                        grad_w[k] += g * x[i];
                    }
                }
            }
        }
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) store(grad_row + k * N, grad_w[k]);
    }
    if (grad_x == nullptr) return;
#pragma GCC unroll 16
    for (int i = 0; i < B; ++i)
        if (!EDGE || static_cast<uint64_t>(start + i) < static_cast<uint64_t>(line.size))
            store_lanes<PART>(grad_x + (start + i) * line.channels + c, sum[i], lanes);
}

template <class T, int K, int S, int B>
SACCADE_INLINE bool forward_is_inner(const Line<T>& line, int64_t start) {
    int64_t first = start * S - line.padding;
    return first >= 0 && first + (B - 1) * S + K <= line.length && start + B <= line.size;
}

template <class T, int K, int S>
void forward_row(const Line<T>& line, const Acc<T>* weight, T* y, int64_t taps) {
    const Channels<Acc<T>> channels(line.channels);
    const int lanes = static_cast<int>(min_of(line.channels, channels.N));
    constexpr int B = S ? BLOCK : 1;
    for (int64_t start = 0; start < line.size; start += B) {
        const int64_t values = B * line.channels;
        if (S && line.ahead != nullptr) prefetch<false>(line.ahead + start * S * line.channels, values * S);
        prefetch<true>(y + (line.size + start) * line.channels, values);
        for (int64_t v = 0; v < channels.vectors; ++v) {
            const Acc<T>* w = weight + v * taps * channels.N;
            const int64_t c = channels.first(v);
            if (channels.partial()) {
                forward_block<T, K, S, B, true, true>(line, start, c, w, y, lanes);
                continue;
            }
            if constexpr (S != 0) {
                if (forward_is_inner<T, K, S, B>(line, start)) {
                    forward_block<T, K, S, B, false, false>(line, start, c, w, y, lanes);
                    continue;
                }
            }
            if constexpr (B > 4) {
                if (line.size - start <= B / 2) {
                    forward_block<T, K, S, B / 2, true, false>(line, start, c, w, y, lanes);
                    continue;
                }
            }
            forward_block<T, K, S, B, true, false>(line, start, c, w, y, lanes);
        }
    }
}

template <class T, int K, int S, int B>
SACCADE_INLINE bool backward_is_inner(const Line<T>& line, int64_t start) {
    int64_t first = (start + line.padding) / S - (K - 1) / S;
    return start >= 0 && start + B <= line.size && first >= 0 && first + (K - 1) / S + (B - 1) / S < line.length;
}

template <class T, int K, int S>
void backward_row(const Line<T>& line, const T* x, const Acc<T>* weight, Acc<T>* grad_weight, T* grad_x, int64_t taps) {
    const Channels<Acc<T>> channels(line.channels);
    const int lanes = static_cast<int>(min_of(line.channels, channels.N));
    constexpr int B = S ? BLOCK : 1;
    const int64_t begin = S ? -(line.padding % (S ? S : 1)) : 0;
    for (int64_t start = begin; start < line.size; start += B) {
        const int64_t values = B * line.channels, next = (line.size + start) * line.channels;
        if (S && line.ahead != nullptr)
            prefetch<false>(line.ahead + start / (S ? S : 1) * line.channels, values / (S ? S : 1));
        prefetch<false>(x + next, values);
        if (grad_x != nullptr) prefetch<true>(grad_x + next, values);
        for (int64_t v = 0; v < channels.vectors; ++v) {
            const Acc<T>* w = weight + v * taps * channels.N;
            Acc<T>* grad_w = grad_weight + v * taps * channels.N;
            const int64_t c = channels.first(v);
            if (channels.partial()) {
                backward_block<T, K, S, B, true, true>(line, start, c, x, w, grad_w, grad_x, lanes);
                continue;
            }
            if constexpr (S != 0) {
                if (backward_is_inner<T, K, S, B>(line, start)) {
                    backward_block<T, K, S, B, false, false>(line, start, c, x, w, grad_w, grad_x, lanes);
                    continue;
                }
            }
            if constexpr (B > 4) {
                if (line.size - start <= B / 2) {
                    backward_block<T, K, S, B / 2, true, false>(line, start, c, x, w, grad_w, grad_x, lanes);
                    continue;
                }
            }
            backward_block<T, K, S, B, true, false>(line, start, c, x, w, grad_w, grad_x, lanes);
        }
    }
}

// Bands of rows along H, all frames of them; a task is a run of bands.
struct Bands {
    int64_t rows, per_clip, count, per_task, tasks;
};

Bands make_bands(const Shape& s, int64_t height, int64_t window_rows_bytes, int64_t step, int64_t reach) {
    // `reach` rows of the window belong to the first row of a band, `step` more to every further one
    int64_t fit = WINDOW_BYTES / max_of(1, s.kernel[0] * window_rows_bytes);
    int64_t rows = max_of(1, (fit - reach) / max_of(1, step) + 1);
    rows = min_of(rows, max_of(1, (height * s.batch + 15) / 16));  // enough tasks for some threads
    Bands b;
    b.rows = min_of(rows, height);
    b.per_clip = (height + b.rows - 1) / b.rows;
    b.count = b.per_clip * s.batch;
    b.per_task = (b.count + MAX_TASKS - 1) / MAX_TASKS;
    b.tasks = (b.count + b.per_task - 1) / b.per_task;
    return b;
}

// Calls row(n, t, h) for the rows of a task: band after band, in a band along T.
template <class F>
void for_rows(const Bands& bands, int64_t task, int64_t frames, int64_t height, F&& row) {
    for (int64_t band = task * bands.per_task; band < min_of(bands.count, (task + 1) * bands.per_task); ++band) {
        const int64_t n = band / bands.per_clip, h0 = band % bands.per_clip * bands.rows;
        for (int64_t t = 0; t < frames; ++t)
            for (int64_t h = h0; h < min_of(height, h0 + bands.rows); ++h) row(n, t, h);
    }
}

template <class T>
struct Kernels {
    using Forward = void (*)(const Line<T>&, const Acc<T>*, T*, int64_t);
    using Backward = void (*)(const Line<T>&, const T*, const Acc<T>*, Acc<T>*, T*, int64_t);
    Forward forward;
    Backward backward;
};

template <class T, int K>
Kernels<T> kernels_of_stride(int64_t stride) {
    if (stride == 1) return {forward_row<T, K, 1>, backward_row<T, K, 1>};
    if (stride == 2) return {forward_row<T, K, 2>, backward_row<T, K, 2>};
    return {forward_row<T, K, 0>, backward_row<T, K, 0>};
}

template <class T>
Kernels<T> kernels_for(const Shape& s) {
    if (s.kernel[2] == 1) return kernels_of_stride<T, 1>(s.stride[2]);
    if (s.kernel[2] == 3) return kernels_of_stride<T, 3>(s.stride[2]);
    return kernels_of_stride<T, 5>(s.stride[2]);
}

template <class T>
int run_forward(const Shape& s, const T* x, const T* weight, T* y, int64_t threads) {
    const Channels<Acc<T>> channels(s.channels);
    const int64_t taps = s.taps(), row_in = s.in[2] * s.channels, row_out = s.out[2] * s.channels;
    Scratch packed(channels.vectors * taps * VECTOR_BYTES);
    if (!packed.ok()) return SACCADE_NO_MEMORY;
    Acc<T>* w = packed.as<Acc<T>>();
    pack_weight(weight, w, channels, taps);
    const auto kernel = kernels_for<T>(s).forward;
    const Bands bands = make_bands(s, s.out[1], row_in * static_cast<int64_t>(sizeof(T)), s.stride[1], s.kernel[1]);
    alignas(64) T zeros[VECTOR_BYTES] = {};
    parallel(bands.tasks, threads, [&](int64_t task, int) {
        Line<T> line;
        line.length = s.in[2], line.size = s.out[2], line.channels = s.channels;
        line.stride = s.stride[2], line.padding = s.padding[2], line.zeros = zeros;
        for_rows(bands, task, s.out[0], s.out[1], [&](int64_t n, int64_t t, int64_t h) {
            line.num_rows = 0;
            for (int64_t kt = 0; kt < s.kernel[0]; ++kt) {
                const int64_t ti = t * s.stride[0] - s.padding[0] + kt;
                if (ti < 0 || ti >= s.in[0]) continue;
                for (int64_t kh = 0; kh < s.kernel[1]; ++kh) {
                    const int64_t hi = h * s.stride[1] - s.padding[1] + kh;
                    if (hi < 0 || hi >= s.in[1]) continue;
                    line.rows[line.num_rows++] = {x + ((n * s.in[0] + ti) * s.in[1] + hi) * row_in,
                                                  (kt * s.kernel[1] + kh) * s.kernel[2]};
                }
            }
            line.ahead = line.num_rows ? line.rows[line.num_rows - 1].data + row_in : nullptr;
            kernel(line, w, y + ((n * s.out[0] + t) * s.out[1] + h) * row_out, taps);
        });
    });
    return SACCADE_OK;
}

// Adds the tasks' partial sums in order and unpacks the channels: [task][vector][tap][N] to (C, taps).
template <class T>
void unpack_grad_weight(const Acc<T>* partials, int64_t tasks, const Channels<Acc<T>>& channels, int64_t taps,
                        T* grad_weight, int64_t threads) {
    constexpr int N = Vec<Acc<T>>::N;
    using V = typename Vec<Acc<T>>::V;
    const int64_t length = channels.vectors * taps * N;
    parallel(channels.vectors, threads, [&](int64_t v, int) {
        for (int64_t tap = 0; tap < taps; ++tap) {
            const Acc<T>* first = partials + (v * taps + tap) * N;
            V sum = load(first);
            for (int64_t task = 1; task < tasks; ++task) sum += load(first + task * length);
            Acc<T> lanes[N];
            store(lanes, sum);
            for (int64_t c = channels.fresh(v); c < min_of(channels.count, (v + 1) * N); ++c)
                grad_weight[c * taps + tap] = from_acc<T>(lanes[c - channels.first(v)]);
        }
    });
}

template <class T>
int run_backward(const Shape& s, const T* grad_y, const T* x, const T* weight, T* grad_x, T* grad_weight, int64_t threads) {
    const Channels<Acc<T>> channels(s.channels);
    const int64_t taps = s.taps(), row_in = s.in[2] * s.channels, row_out = s.out[2] * s.channels;
    const int64_t length = channels.vectors * taps * channels.N;
    const Bands bands = make_bands(s, s.in[1], row_out * static_cast<int64_t>(sizeof(T)), 1,
                                   (s.kernel[1] + s.stride[1] - 1) / s.stride[1]);
    Scratch packed(length * static_cast<int64_t>(sizeof(Acc<T>)));
    Scratch sums(length * bands.tasks * static_cast<int64_t>(sizeof(Acc<T>)));
    if (!packed.ok() || !sums.ok()) return SACCADE_NO_MEMORY;
    Acc<T>* w = packed.as<Acc<T>>();
    pack_weight(weight, w, channels, taps);
    const auto kernel = kernels_for<T>(s).backward;
    alignas(64) T zeros[VECTOR_BYTES] = {};
    parallel(bands.tasks, threads, [&](int64_t task, int) {
        Acc<T>* grad_w = sums.as<Acc<T>>() + task * length;
        memset(grad_w, 0, static_cast<size_t>(length) * sizeof(Acc<T>));
        Line<T> line;
        line.length = s.out[2], line.size = s.in[2], line.channels = s.channels;
        line.stride = s.stride[2], line.padding = s.padding[2], line.zeros = zeros;
        for_rows(bands, task, s.in[0], s.in[1], [&](int64_t n, int64_t t, int64_t h) {
            line.num_rows = 0;
            for (int64_t kt = 0; kt < s.kernel[0]; ++kt) {
                const int64_t to = t + s.padding[0] - kt;
                if (to < 0 || to % s.stride[0] || to / s.stride[0] >= s.out[0]) continue;
                for (int64_t kh = 0; kh < s.kernel[1]; ++kh) {
                    const int64_t ho = h + s.padding[1] - kh;
                    if (ho < 0 || ho % s.stride[1] || ho / s.stride[1] >= s.out[1]) continue;
                    line.rows[line.num_rows++] = {
                        grad_y + ((n * s.out[0] + to / s.stride[0]) * s.out[1] + ho / s.stride[1]) * row_out,
                        (kt * s.kernel[1] + kh) * s.kernel[2]};
                }
            }
            line.ahead = line.num_rows ? line.rows[0].data + row_out : nullptr;
            const int64_t offset = ((n * s.in[0] + t) * s.in[1] + h) * row_in;
            kernel(line, x + offset, w, grad_w, grad_x == nullptr ? nullptr : grad_x + offset, taps);
        });
    });
    if (grad_weight != nullptr) unpack_grad_weight<T>(sums.as<Acc<T>>(), bands.tasks, channels, taps, grad_weight, threads);
    return SACCADE_OK;
}

bool supported(const Shape& s) {
    for (int i = 0; i < 3; ++i)
        if (s.kernel[i] != 1 && s.kernel[i] != 3 && s.kernel[i] != 5) return false;
    return true;
}

template <class T>
int forward_as(const Shape& s, const void* x, const void* weight, void* y, int64_t threads) {
    if (!supported(s)) return SACCADE_UNSUPPORTED;
    return run_forward(s, static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<T*>(y), threads);
}

template <class T>
int backward_as(const Shape& s, const void* grad_y, const void* x, const void* weight, void* grad_x,
                void* grad_weight, int64_t threads) {
    if (!supported(s)) return SACCADE_UNSUPPORTED;
    return run_backward(s, static_cast<const T*>(grad_y), static_cast<const T*>(x), static_cast<const T*>(weight),
                        static_cast<T*>(grad_x), static_cast<T*>(grad_weight), threads);
}

}  // namespace

#define SACCADE_SHAPE_ARGS                                                                                       \
    int64_t batch, int64_t channels, int64_t t_in, int64_t h_in, int64_t w_in, int64_t t_out, int64_t h_out,     \
        int64_t w_out, int64_t kt, int64_t kh, int64_t kw, int64_t st, int64_t sh, int64_t sw, int64_t pt,       \
        int64_t ph, int64_t pw
#define SACCADE_SHAPE \
    Shape { batch, channels, {t_in, h_in, w_in}, {t_out, h_out, w_out}, {kt, kh, kw}, {st, sh, sw}, {pt, ph, pw} }

// x (B, T, H, W, C), weight (C, kt, kh, kw), y (B, T', H', W', C).
SACCADE_EXPORT(depthwise_conv3d)
(int64_t dtype, const void* x, const void* weight, void* y, SACCADE_SHAPE_ARGS, int64_t threads) {
    const Shape s = SACCADE_SHAPE;
    switch (dtype) {
        case SACCADE_FLOAT32: return forward_as<float>(s, x, weight, y, threads);
        case SACCADE_FLOAT64: return forward_as<double>(s, x, weight, y, threads);
        case SACCADE_BFLOAT16: return forward_as<BFloat16>(s, x, weight, y, threads);
        case SACCADE_FLOAT16: return forward_as<Float16>(s, x, weight, y, threads);
        default: return SACCADE_UNSUPPORTED;
    }
}

// grad_x or grad_weight may be null: it is not wanted.
SACCADE_EXPORT(depthwise_conv3d_backward)
(int64_t dtype, const void* grad_y, const void* x, const void* weight, void* grad_x, void* grad_weight,
 SACCADE_SHAPE_ARGS, int64_t threads) {
    const Shape s = SACCADE_SHAPE;
    switch (dtype) {
        case SACCADE_FLOAT32: return backward_as<float>(s, grad_y, x, weight, grad_x, grad_weight, threads);
        case SACCADE_FLOAT64: return backward_as<double>(s, grad_y, x, weight, grad_x, grad_weight, threads);
        case SACCADE_BFLOAT16: return backward_as<BFloat16>(s, grad_y, x, weight, grad_x, grad_weight, threads);
        case SACCADE_FLOAT16: return backward_as<Float16>(s, grad_y, x, weight, grad_x, grad_weight, threads);
        default: return SACCADE_UNSUPPORTED;
    }
}
