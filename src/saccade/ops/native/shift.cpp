// shift3d: every channel of a clip moved by a real number of frames and pixels. The definition is in shift/naive.py.
//
// Clips are contiguous (B, C, T, H, W). The shift is one for a whole channel, so both directions blend whole rows:
// first the (at most four) rows that lie around the wanted frame and height, aligned and in the clip's own columns,
// into a scratch row; then two neighbours of the scratch row. Backward is arranged by input rows: with g mixed in
// time and height to P (and its derivatives to P_T, P_H), the row of the input gradient is the spread of P, and the
// shift gradient is the row's product with the spreads of P_T and P_H and with the difference of P. So g, x and
// grad_x pass once, whatever the number of gradients.
//
// A task is one channel of one clip. It leaves its part of the shift gradient in a place of its own, and the parts
// are summed in the order of the clips: the result does not depend on the threads.
#include "vec.h"

namespace {

constexpr int64_t ROWS = 8;     // rows handled together: their scratch rows stay in the first-level cache
constexpr int64_t FAR = int64_t(1) << 40;  // a shift beyond this is beyond every frame

struct Sizes {
    int64_t clips, channels, in[3], out[3], stride[3], padding[3];
    int64_t in_plane() const { return in[1] * in[2]; }
    int64_t out_plane() const { return out[1] * out[2]; }
};

// One axis of one channel's shift. `soft` are the weights of the two neighbours, `weight` those in use (rounded if
// quantised); neighbour d of output o is the input at o * stride + first + d.
template <class A>
struct Axis {
    int64_t first, stride, in, out;
    A soft[2], weight[2];
};

template <class A>
bool read_shift(const A* shift, const Sizes& sizes, int64_t channel, bool quantize, Axis<A>* axes) {
    bool finite = true;
    for (int a = 0; a < 3; ++a) {
        A value = shift[a * sizes.channels + channel];
        A whole = sizeof(A) == 4 ? A(__builtin_floorf(float(value))) : A(__builtin_floor(double(value)));
        A r = value - whole;
        finite = finite && r == r;
        int64_t near = whole >= A(FAR) ? FAR : whole <= -A(FAR) ? -FAR : whole == whole ? int64_t(whole) : 0;
        bool up = r >= A(0.5);
        axes[a] = Axis<A>{near - sizes.padding[a], sizes.stride[a], sizes.in[a], sizes.out[a], {1 - r, r}, {1 - r, r}};
        if (quantize) axes[a].weight[0] = up ? 0 : 1, axes[a].weight[1] = up ? 1 : 0;
    }
    return finite;
}

// The one or two positions that take part at a position of the other side.
struct Taps {
    int count, which[2];
    int64_t at[2];
};

template <class A>
Taps sources_of(const Axis<A>& axis, int64_t output) {
    Taps taps{};
    for (int d = 0; d < 2; ++d) {
        int64_t i = output * axis.stride + axis.first + d;
        if (i < 0 || i >= axis.in || axis.weight[d] == 0) continue;
        taps.at[taps.count] = i;
        taps.which[taps.count++] = d;
    }
    return taps;
}

template <class A>
Taps readers_of(const Axis<A>& axis, int64_t input, bool weightless_too) {
    Taps taps{};
    for (int d = 0; d < 2; ++d) {
        int64_t n = input - axis.first - d;
        if (n < 0 || n % axis.stride != 0 || n / axis.stride >= axis.out) continue;
        if (axis.weight[d] == 0 && !weightless_too) continue;
        taps.at[taps.count] = n / axis.stride;
        taps.which[taps.count++] = d;
    }
    return taps;
}

// Outputs of the row axis of which a neighbour lies inside the input: [from, to).
struct Range {
    int64_t from, to;
};

template <class A>
Range reading_outputs(const Axis<A>& axis) {
    int64_t s = axis.stride, low = -1 - axis.first, high = axis.in - 1 - axis.first;
    int64_t from = low <= 0 ? 0 : (low + s - 1) / s;
    int64_t to = high < 0 ? 0 : min_of(axis.out, high / s + 1);
    return from < to ? Range{from, to} : Range{0, 0};
}

template <class T>
void fill(T* p, int64_t n, T value) {
    for (int64_t i = 0; i < n; ++i) p[i] = value;
}

// For j in [0, width): visit(j, n) with n == N, or less for the last one.
template <int N, class F>
SACCADE_INLINE void by_vectors(int64_t width, F&& visit) {
    int64_t j = 0;
    for (; j + N <= width; j += N) visit(j, N);
    if (j < width) visit(j, static_cast<int>(width - j));
}

template <class T>
SACCADE_INLINE typename Vec<Acc<T>>::V load_n(const T* p, int n) {
    return n == Vec<Acc<T>>::N ? load(p) : load_part(p, n);
}

template <class T>
SACCADE_INLINE void store_n(T* p, typename Vec<Acc<T>>::V v, int n) {
    if (n == Vec<Acc<T>>::N) store(p, v);
    else store_part(p, v, n);
}

// Scratch rows: index 0 is the row's first element, zeros stand before and behind, at least a vector of them.
template <class A>
int64_t scratch_pitch(int64_t width) {
    return round_up(width, Vec<A>::N) + 3 * Vec<A>::N;
}

// mixed[m][j] = sum over k of coefficients[m][k] * rows[k][j]
template <class T, int K, int M>
void mix(const T* const* rows, const Acc<T> (*coefficients)[4], Acc<T>* const* mixed, int64_t width) {
    using A = Acc<T>;
    by_vectors<Vec<A>::N>(width, [&](int64_t j, int n) {
        typename Vec<A>::V sums[M] = {};
        for (int k = 0; k < K; ++k) {
            typename Vec<A>::V v = load_n(rows[k] + j, n);
            for (int m = 0; m < M; ++m) sums[m] += coefficients[m][k] * v;
        }
        for (int m = 0; m < M; ++m) store(mixed[m] + j, sums[m]);
    });
}

template <class T, int M>
void mix_rows(int count, const T* const* rows, const Acc<T> (*coefficients)[4], Acc<T>* const* mixed,
              int64_t width) {
    if (count == 1) mix<T, 1, M>(rows, coefficients, mixed, width);
    else if (count == 2) mix<T, 2, M>(rows, coefficients, mixed, width);
    else mix<T, 4, M>(rows, coefficients, mixed, width);
}

template <class A>
SACCADE_INLINE void gather_pairs(const A* row, A* out, int64_t stride, int64_t count, A w0, A w1) {
    for (int64_t o = 0; o < count; ++o) out[o] = w0 * row[o * stride] + w1 * row[o * stride + 1];
}

template <class A>
SACCADE_INLINE void spread_pairs(const A* row, A* out, int64_t stride, int64_t count, A w0, A w1) {
    for (int64_t o = 0; o < count; ++o) {
        out[o * stride] = w0 * row[o];
        out[o * stride + 1] = w1 * row[o];
    }
}

// A row of the output from the mixed input row. `scratch` is a row for the outputs of strided reading.
template <class T>
void blend_columns(const Acc<T>* row, const Axis<Acc<T>>& axis, Range range, Acc<T>* scratch, T* out) {
    using A = Acc<T>;
    int64_t count = range.to - range.from;
    const A* first = row + range.from * axis.stride + axis.first;
    A w0 = axis.weight[0], w1 = axis.weight[1];
    memset(static_cast<void*>(out), 0, static_cast<size_t>(range.from) * sizeof(T));
    memset(static_cast<void*>(out + range.to), 0, static_cast<size_t>(axis.out - range.to) * sizeof(T));
    out += range.from;
    if (axis.stride == 1) {
        by_vectors<Vec<A>::N>(
            count, [&](int64_t j, int n) { store_n(out + j, w0 * load(first + j) + w1 * load(first + j + 1), n); });
        return;
    }
    if (axis.stride == 2) gather_pairs(first, scratch, 2, count, w0, w1);
    else gather_pairs(first, scratch, axis.stride, count, w0, w1);
    by_vectors<Vec<A>::N>(count, [&](int64_t j, int n) { store_n(out + j, load(scratch + j), n); });
}

template <class T>
void forward_channel(const Sizes& sizes, const Axis<Acc<T>>* axes, const T* x, T* out, Acc<T>* scratch) {
    using A = Acc<T>;
    int64_t pitch = scratch_pitch<A>(max_of(sizes.in[2], sizes.out[2]));
    int64_t width = sizes.in[2];
    Range range = reading_outputs(axes[2]);
    A* const strided = scratch + ROWS * pitch + Vec<A>::N;
    for (int64_t t = 0; t < sizes.out[0]; ++t) {
        Taps frames = sources_of(axes[0], t);
        for (int64_t top = 0; top < sizes.out[1]; top += ROWS) {
            int64_t bottom = min_of(top + ROWS, sizes.out[1]);
            bool any[ROWS];
            for (int64_t h = top; h < bottom; ++h) {
                Taps heights = sources_of(axes[1], h);
                const T* rows[4] = {};
                A weights[1][4] = {};
                int count = 0;
                for (int a = 0; a < frames.count; ++a)
                    for (int b = 0; b < heights.count; ++b, ++count) {
                        rows[count] = x + frames.at[a] * sizes.in_plane() + heights.at[b] * width;
                        weights[0][count] = axes[0].weight[frames.which[a]] * axes[1].weight[heights.which[b]];
                    }
                A* mixed[1] = {scratch + (h - top) * pitch + Vec<A>::N};
                any[h - top] = count > 0 && range.to > range.from;
                if (any[h - top]) mix_rows<T, 1>(count, rows, weights, mixed, width);
            }
            for (int64_t h = top; h < bottom; ++h) {
                T* row = out + t * sizes.out_plane() + h * sizes.out[2];
                if (any[h - top]) blend_columns(scratch + (h - top) * pitch + Vec<A>::N, axes[2], range, strided, row);
                else memset(static_cast<void*>(row), 0, static_cast<size_t>(sizes.out[2]) * sizeof(T));
            }
        }
    }
}

// What backward mixes of the gradient's rows: for the input gradient (INPUT), and for the derivatives by the three
// components of the shift. Without quantisation the input gradient and the derivative by W share one mix.
template <bool X, bool S, bool QUANTIZED>
struct Mixes {
    static constexpr int INPUT = 0, BY_W = QUANTIZED ? 1 : 0, BY_H = BY_W + 1, BY_T = BY_W + 2;
    static constexpr int COUNT = S ? BY_T + 1 : 1;
};

template <class A>
struct Sums {
    typename Vec<A>::V t, h, w;
};

// Row coefficients of every mix. The derivative by a component takes -1 and 1 for that axis' weights.
template <class A, class M>
int reader_rows(const Axis<A>* axes, const Taps& frames, const Taps& heights, const Sizes& sizes,
                int64_t* offsets, A (*coefficients)[4]) {
    int count = 0;
    for (int a = 0; a < frames.count; ++a)
        for (int b = 0; b < heights.count; ++b, ++count) {
            int dt = frames.which[a], dh = heights.which[b];
            offsets[count] = frames.at[a] * sizes.out_plane() + heights.at[b] * sizes.out[2];
            if (M::COUNT > 1) {
                coefficients[M::BY_W][count] = axes[0].soft[dt] * axes[1].soft[dh];
                coefficients[M::BY_H][count] = dh ? axes[0].soft[dt] : -axes[0].soft[dt];
                coefficients[M::BY_T][count] = dt ? axes[1].soft[dh] : -axes[1].soft[dh];
            }
            coefficients[M::INPUT][count] = axes[0].weight[dt] * axes[1].weight[dh];
        }
    return count;
}

// One row of the input gradient, and what the row adds to the sums, at stride 1 from the mixed rows.
template <class T, bool X, bool S, bool QUANTIZED>
void backward_row(const Acc<T>* mixed, int64_t pitch, const Axis<Acc<T>>& axis, const T* x, T* grad_x,
                  Sums<Acc<T>>* sums) {
    using A = Acc<T>;
    using M = Mixes<X, S, QUANTIZED>;
    int64_t from = max_of(0, axis.first), to = min_of(axis.in, axis.first + axis.out + 1);
    if (to <= from) from = to = 0;
    if (X) {
        memset(static_cast<void*>(grad_x), 0, static_cast<size_t>(from) * sizeof(T));
        memset(static_cast<void*>(grad_x + to), 0, static_cast<size_t>(axis.in - to) * sizeof(T));
    }
    const A* first = mixed + from - axis.first;
    by_vectors<Vec<A>::N>(to - from, [&](int64_t j, int n) {
        const A* p = first + j;
        if (X) {
            const A* q = p + M::INPUT * pitch;
            store_n(grad_x + from + j, axis.weight[0] * load(q) + axis.weight[1] * load(q - 1), n);
        }
        if (S) {
            typename Vec<A>::V v = load_n(x + from + j, n);
            const A *w = p + M::BY_W * pitch, *h = p + M::BY_H * pitch, *t = p + M::BY_T * pitch;
            sums->w += v * (load(w - 1) - load(w));
            sums->h += v * (axis.soft[0] * load(h) + axis.soft[1] * load(h - 1));
            sums->t += v * (axis.soft[0] * load(t) + axis.soft[1] * load(t - 1));
        }
    });
}

// The same at any stride: the mixed rows are first spread over the input's columns, into `spread`.
template <class T, bool X, bool S, bool QUANTIZED>
void backward_row_strided(const Acc<T>* mixed, int64_t pitch, const Axis<Acc<T>>& axis, Range range, const T* x,
                          T* grad_x, Acc<T>* spread, Sums<Acc<T>>* sums) {
    using A = Acc<T>;
    using M = Mixes<X, S, QUANTIZED>;
    auto put = [&](int row, int mix, A w0, A w1) {
        A* to = spread + row * pitch;
        fill<A>(to - 1, axis.in + 2, 0);
        to += range.from * axis.stride + axis.first;
        const A* values = mixed + mix * pitch + range.from;
        if (axis.stride == 2) spread_pairs(values, to, 2, range.to - range.from, w0, w1);
        else spread_pairs(values, to, axis.stride, range.to - range.from, w0, w1);
    };
    if (X) put(0, M::INPUT, axis.weight[0], axis.weight[1]);
    if (S) {
        put(1, M::BY_W, -1, 1);
        put(2, M::BY_H, axis.soft[0], axis.soft[1]);
        put(3, M::BY_T, axis.soft[0], axis.soft[1]);
    }
    by_vectors<Vec<A>::N>(axis.in, [&](int64_t j, int n) {
        if (X) store_n(grad_x + j, load(spread + j), n);
        if (S) {
            typename Vec<A>::V v = load_n(x + j, n);
            sums->w += v * load(spread + pitch + j);
            sums->h += v * load(spread + 2 * pitch + j);
            sums->t += v * load(spread + 3 * pitch + j);
        }
    });
}

template <class T, bool X, bool S, bool QUANTIZED>
void backward_channel(const Sizes& sizes, const Axis<Acc<T>>* axes, const T* grad, const T* x, T* grad_x,
                      double* part, Acc<T>* scratch) {
    using A = Acc<T>;
    using M = Mixes<X, S, QUANTIZED>;
    int64_t pitch = scratch_pitch<A>(max_of(sizes.in[2], sizes.out[2]));
    A* const mixes = scratch + Vec<A>::N;
    A* const spread = mixes + ROWS * M::COUNT * pitch;
    Range range = reading_outputs(axes[2]);
    double totals[3] = {};
    for (int64_t t = 0; t < sizes.in[0]; ++t) {
        Taps frames = readers_of(axes[0], t, S);
        for (int64_t top = 0; top < sizes.in[1]; top += ROWS) {
            int64_t bottom = min_of(top + ROWS, sizes.in[1]);
            bool any[ROWS];
            for (int64_t h = top; h < bottom; ++h) {
                int64_t offsets[4];
                A coefficients[M::COUNT][4];
                int count = reader_rows<A, M>(axes, frames, readers_of(axes[1], h, S), sizes, offsets, coefficients);
                any[h - top] = count > 0;
                if (count == 0) continue;
                const T* rows[4] = {};
                A* mixed[M::COUNT];
                for (int k = 0; k < count; ++k) rows[k] = grad + offsets[k];
                for (int m = 0; m < M::COUNT; ++m) mixed[m] = mixes + ((h - top) * M::COUNT + m) * pitch;
                mix_rows<T, M::COUNT>(count, rows, coefficients, mixed, sizes.out[2]);
            }
            Sums<A> sums{};
            for (int64_t h = top; h < bottom; ++h) {
                int64_t offset = t * sizes.in_plane() + h * sizes.in[2];
                T* row = X ? grad_x + offset : nullptr;
                const A* mixed = mixes + (h - top) * M::COUNT * pitch;
                if (!any[h - top]) {
                    if (X) memset(static_cast<void*>(row), 0, static_cast<size_t>(sizes.in[2]) * sizeof(T));
                } else if (axes[2].stride == 1) {
                    backward_row<T, X, S, QUANTIZED>(mixed, pitch, axes[2], S ? x + offset : nullptr, row, &sums);
                } else {
                    backward_row_strided<T, X, S, QUANTIZED>(mixed, pitch, axes[2], range, S ? x + offset : nullptr,
                                                             row, spread, &sums);
                }
            }
            totals[0] += double(sum_of<A>(sums.t));
            totals[1] += double(sum_of<A>(sums.h));
            totals[2] += double(sum_of<A>(sums.w));
        }
    }
    if (S) memcpy(part, totals, sizeof totals);
}

// A scratch row of the longest kind, for every row of a block and every mix, and four rows for strides.
template <class A>
int64_t scratch_bytes(const Sizes& sizes) {
    int64_t rows = ROWS * 4 + 4;
    return (rows * scratch_pitch<A>(max_of(sizes.in[2], sizes.out[2])) + Vec<A>::N) * int64_t(sizeof(A));
}

// Runs body(task, scratch) for every channel of every clip; the scratch memory is the thread's, and zero at first.
template <class A, class F>
int for_channels(const Sizes& sizes, int64_t threads, F&& body) {
    int64_t bytes = round_up(scratch_bytes<A>(sizes), 64);
    threads = max_of(1, min_of(threads, sizes.clips * sizes.channels));
    Scratch memory(bytes * threads);
    if (!memory.ok()) return SACCADE_NO_MEMORY;
    memset(memory.as<char>(), 0, static_cast<size_t>(bytes * threads));
    parallel(sizes.clips * sizes.channels, threads, [&](int64_t task, int thread) {
        body(task, reinterpret_cast<A*>(memory.as<char>() + thread * bytes));
    });
    return SACCADE_OK;
}

template <class T>
int forward(const Sizes& sizes, const T* x, const Acc<T>* shift, T* out, bool quantize, int64_t threads) {
    using A = Acc<T>;
    int64_t in_size = sizes.in[0] * sizes.in_plane(), out_size = sizes.out[0] * sizes.out_plane();
    return for_channels<A>(sizes, threads, [&](int64_t task, A* scratch) {
        Axis<A> axes[3];
        T* to = out + task * out_size;
        if (read_shift(shift, sizes, task % sizes.channels, quantize, axes))
            forward_channel<T>(sizes, axes, x + task * in_size, to, scratch);
        else fill(to, out_size, from_acc<T>(A(__builtin_nanf(""))));
    });
}

template <class T, bool X, bool S, bool QUANTIZED>
int backward(const Sizes& sizes, const T* grad, const T* x, const Acc<T>* shift, T* grad_x, Acc<T>* grad_shift,
             bool quantize, int64_t threads) {
    using A = Acc<T>;
    int64_t in_size = sizes.in[0] * sizes.in_plane(), out_size = sizes.out[0] * sizes.out_plane();
    Scratch parts(S ? sizes.clips * sizes.channels * 3 * int64_t(sizeof(double)) : 0);
    if (!parts.ok()) return SACCADE_NO_MEMORY;
    int code = for_channels<A>(sizes, threads, [&](int64_t task, A* scratch) {
        Axis<A> axes[3];
        double* part = S ? parts.as<double>() + task * 3 : nullptr;
        T* to = X ? grad_x + task * in_size : nullptr;
        if (read_shift(shift, sizes, task % sizes.channels, quantize, axes)) {
            backward_channel<T, X, S, QUANTIZED>(sizes, axes, grad + task * out_size, S ? x + task * in_size : nullptr,
                                                 to, part, scratch);
            return;
        }
        if (X) fill(to, in_size, from_acc<T>(A(__builtin_nanf(""))));
        if (S) fill(part, 3, __builtin_nan(""));
    });
    if (!S || code != SACCADE_OK) return code;
    for (int64_t c = 0; c < sizes.channels; ++c)
        for (int a = 0; a < 3; ++a) {
            double sum = 0;
            for (int64_t b = 0; b < sizes.clips; ++b) sum += parts.as<double>()[(b * sizes.channels + c) * 3 + a];
            grad_shift[a * sizes.channels + c] = A(sum);
        }
    return SACCADE_OK;
}

template <class T>
int backward_of(const Sizes& sizes, const void* grad, const void* x, const void* shift, void* grad_x,
                void* grad_shift, bool quantize, int64_t threads) {
    using A = Acc<T>;
    auto run = [&](auto kernel) {
        return kernel(sizes, static_cast<const T*>(grad), static_cast<const T*>(x), static_cast<const A*>(shift),
                      static_cast<T*>(grad_x), static_cast<A*>(grad_shift), quantize, threads);
    };
    if (!grad_shift) return run(backward<T, true, false, false>);
    if (!grad_x) return run(backward<T, false, true, false>);
    return quantize ? run(backward<T, true, true, true>) : run(backward<T, true, true, false>);
}

}  // namespace

// x (B, C, T, H, W), shift (3, C) in double for double, else float; out (B, C, T', H', W').
SACCADE_EXPORT(shift3d_forward)(int64_t dtype, const void* x, const void* shift, void* out, int64_t clips,
                                int64_t channels, int64_t in_t, int64_t in_h, int64_t in_w, int64_t out_t,
                                int64_t out_h, int64_t out_w, int64_t stride_t, int64_t stride_h, int64_t stride_w,
                                int64_t pad_t, int64_t pad_h, int64_t pad_w, int64_t quantize, int64_t threads) {
    Sizes sizes{clips, channels, {in_t, in_h, in_w}, {out_t, out_h, out_w}, {stride_t, stride_h, stride_w},
                {pad_t, pad_h, pad_w}};
    auto run = [&](auto* element) {
        using T = __typeof__(*element);
        return forward<T>(sizes, static_cast<const T*>(x), static_cast<const Acc<T>*>(shift), static_cast<T*>(out),
                          quantize != 0, threads);
    };
    switch (dtype) {
        case SACCADE_FLOAT32: return run(static_cast<float*>(nullptr));
        case SACCADE_FLOAT64: return run(static_cast<double*>(nullptr));
        case SACCADE_BFLOAT16: return run(static_cast<BFloat16*>(nullptr));
        case SACCADE_FLOAT16: return run(static_cast<Float16*>(nullptr));
        default: return SACCADE_UNSUPPORTED;
    }
}

// grad is the output's gradient. grad_x or grad_shift may be null: not wanted. Without grad_shift, x is not read.
SACCADE_EXPORT(shift3d_backward)(int64_t dtype, const void* grad, const void* x, const void* shift, void* grad_x,
                                 void* grad_shift, int64_t clips, int64_t channels, int64_t in_t, int64_t in_h,
                                 int64_t in_w, int64_t out_t, int64_t out_h, int64_t out_w, int64_t stride_t,
                                 int64_t stride_h, int64_t stride_w, int64_t pad_t, int64_t pad_h, int64_t pad_w,
                                 int64_t quantize, int64_t threads) {
    Sizes sizes{clips, channels, {in_t, in_h, in_w}, {out_t, out_h, out_w}, {stride_t, stride_h, stride_w},
                {pad_t, pad_h, pad_w}};
    bool rounded = quantize != 0;
    switch (dtype) {
        case SACCADE_FLOAT32: return backward_of<float>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        case SACCADE_FLOAT64: return backward_of<double>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        case SACCADE_BFLOAT16: return backward_of<BFloat16>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        case SACCADE_FLOAT16: return backward_of<Float16>(sizes, grad, x, shift, grad_x, grad_shift, rounded, threads);
        default: return SACCADE_UNSUPPORTED;
    }
}
