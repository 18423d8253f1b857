// Shifting row by row: for any size, stride and padding.
//
// First the (at most four) rows around the wanted frame and height are mixed, in the columns they have, into a scratch
// row; then the scratch row is read at two neighbouring columns. A few rows are handled together: first all are mixed,
// then all are read, or the second step would wait for what the first has only just written.
#pragma once

#include "shift_axes.h"

namespace {

constexpr int64_t ROWS = 8;

// Outputs of the column axis of which a neighbour lies inside the input: [from, to).
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

// A scratch row has zeros before it and behind it: whole vectors may be read around its ends.
template <class A>
int64_t row_pitch(const Sizes& sizes) {
    return round_up(max_of(sizes.in[2], sizes.out[2]), Vec<A>::N) + 4 * Vec<A>::N;
}

// For every row of a block: four mixes, the row of x, the row of the input gradient. Then the taps of the height axis.
template <class A>
int64_t rows_bytes(const Sizes& sizes) {
    int64_t taps = max_of(sizes.in[1], sizes.out[1]) * int64_t(sizeof(Taps));
    return round_up(6 * ROWS * row_pitch<A>(sizes) * int64_t(sizeof(A)) + taps, 64);
}

template <class A>
Taps* taps_of(const Sizes& sizes, A* scratch) {
    return reinterpret_cast<Taps*>(scratch + 6 * ROWS * row_pitch<A>(sizes));
}

// Elements 0, 2, 4 ... and 1, 3, 5 ... of two vectors that follow each other.
template <class A>
struct Pair {
    typename Vec<A>::V even, odd;
};

template <class A>
SACCADE_INLINE Pair<A> load_pairs(const A* p) {
    constexpr int N = Vec<A>::N;
    typename Vec<A>::V a = load(p), b = load(p + N);
#if defined(__clang__)
    Pair<A> pair;
    for (int i = 0; i < N; ++i) {
        pair.even[i] = 2 * i < N ? a[2 * i] : b[2 * i - N];
        pair.odd[i] = 2 * i < N ? a[2 * i + 1] : b[2 * i + 1 - N];
    }
    return pair;
#else
    typedef Bits<A> B __attribute__((vector_size(VECTOR_BYTES)));
    B even, odd;
    for (int i = 0; i < N; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
    return {__builtin_shuffle(a, b, even), __builtin_shuffle(a, b, odd)};
#endif
}

// A row of the output from the mixed input row.
template <class T>
void blend_columns(const Acc<T>* row, const Axis<Acc<T>>& axis, Range range, T* out) {
    using A = Acc<T>;
    constexpr int N = Vec<A>::N;
    if (axis.stride == 1) {  // the zeros around the row are as good as fewer outputs, and let stores be aligned
        range.from = max_of(0, -N - axis.first);
        range.to = min_of(axis.out, axis.in + N - axis.first);
    }
    int64_t count = range.to - range.from;
    const A* first = row + range.from * axis.stride + axis.first;
    const A w0 = axis.weight[0], w1 = axis.weight[1];
    zero(out, range.from);
    zero(out + range.to, axis.out - range.to);
    out += range.from;
    if (axis.stride == 1) {
        by_vectors<N>(count, SACCADE_VISIT(j, n, seen) {
            store_n(out + j, w0 * load(first + j) + w1 * load(first + j + 1), n);
        });
    } else if (axis.stride == 2) {
        by_vectors<N>(count, SACCADE_VISIT(j, n, seen) {
            Pair<A> pair = load_pairs(first + 2 * j);
            store_n(out + j, w0 * pair.even + w1 * pair.odd, n);
        });
    } else {
        for (int64_t o = 0; o < count; ++o)
            out[o] = from_acc<T>(w0 * first[o * axis.stride] + w1 * first[o * axis.stride + 1]);
    }
}

template <class T>
void forward_rows(const Sizes& sizes, const Axis<Acc<T>>* axes, const T* x, T* out, Acc<T>* scratch) {
    using A = Acc<T>;
    int64_t pitch = row_pitch<A>(sizes), width = sizes.in[2];
    Range range = reading_outputs(axes[2]);
    Taps* const heights = taps_of(sizes, scratch);
    scratch += Vec<A>::N;
    for (int64_t h = 0; h < sizes.out[1]; ++h) heights[h] = sources_of(axes[1], h);
    for (int64_t t = 0; t < sizes.out[0]; ++t) {
        Taps frames = sources_of(axes[0], t);
        if (frames.count == 0 || range.to == range.from) {
            zero(out + t * sizes.out_plane(), sizes.out_plane());
            continue;
        }
        int64_t last = frames.at[frames.count - 1];
        for (int64_t top = 0; top < sizes.out[1]; top += ROWS) {
            int64_t bottom = min_of(top + ROWS, sizes.out[1]);
            for (int64_t h = top; h < bottom; ++h) {
                const T* rows[4] = {};
                A weights[1][4] = {};
                int count = 0;
                for (int a = 0; a < frames.count; ++a)
                    for (int b = 0; b < heights[h].count; ++b, ++count) {
                        rows[count] = x + frames.at[a] * sizes.in_plane() + heights[h].at[b] * width;
                        weights[0][count] = axes[0].weight[frames.which[a]] * axes[1].weight[heights[h].which[b]];
                    }
                A* mixed = scratch + (h - top) * pitch;
                if (count == 0) continue;
                if (last + 1 < sizes.in[0]) fetch<false>(rows[count - 1] + sizes.in_plane(), width * axes[1].stride);
                mix_rows<T, 1>(count, rows, weights, &mixed, width);
            }
            for (int64_t h = top; h < bottom; ++h) {
                T* row = out + t * sizes.out_plane() + h * sizes.out[2];
                if (t + 1 < sizes.out[0]) fetch<true>(row + sizes.out_plane(), sizes.out[2]);
                if (heights[h].count) blend_columns(scratch + (h - top) * pitch, axes[2], range, row);
                else zero(row, sizes.out[2]);
            }
        }
    }
}

// Mixes of the gradient's rows in backward: for the input gradient (INPUT), and for the derivatives by the three
// components of the shift. Without rounding, the input gradient and the derivative by W use the same mix.
template <bool S, bool QUANTIZED>
struct Mixes {
    static constexpr int INPUT = 0, BY_W = QUANTIZED ? 1 : 0, BY_H = BY_W + 1, BY_T = BY_W + 2;
    static constexpr int COUNT = S ? BY_T + 1 : 1;
};

// The rows that read an input row, and their coefficients: a derivative has -1 and 1 for its own axis' weights.
template <class A, class M>
int reader_rows(const Axis<A>* axes, const Taps& frames, const Taps& heights, const Sizes& sizes, int64_t* offsets,
                A (*coefficients)[4]) {
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

// One row of the input gradient, and what the row adds to the sums, at stride 1.
template <class T, bool X, bool S, bool QUANTIZED>
void read_row(const Acc<T>* mixed, int64_t pitch, const Axis<Acc<T>>& axis, const T* x, T* grad_x,
              Sums<Acc<T>>* sums) {
    using A = Acc<T>;
    using M = Mixes<S, QUANTIZED>;
    using V = typename Vec<A>::V;
    int64_t from = max_of(0, axis.first), to = min_of(axis.in, axis.first + axis.out + 1);
    if (to <= from) from = to = 0;
    if (X) zero(grad_x, from), zero(grad_x + to, axis.in - to);
    const A* first = mixed + from - axis.first;
    V by_t = sums->lanes[0], by_h = sums->lanes[1], by_w = sums->lanes[2];
    by_vectors<Vec<A>::N>(to - from, SACCADE_VISIT(j, n, seen) {
        const A *p = first + j, *q = p + M::INPUT * pitch;
        V a = load(q), b = load(q - 1);
        if (X) store_n(grad_x + from + j, axis.weight[0] * a + axis.weight[1] * b, n);
        if (S) {
            V v = unseen<A>(load_n(x + from + j, n), seen);
            const A *w = p + M::BY_W * pitch, *h = p + M::BY_H * pitch, *t = p + M::BY_T * pitch;
            if (QUANTIZED) a = load(w), b = load(w - 1);
            by_w += v * (b - a);
            by_h += v * (axis.soft[0] * load(h) + axis.soft[1] * load(h - 1));
            by_t += v * (axis.soft[0] * load(t) + axis.soft[1] * load(t - 1));
        }
    });
    sums->lanes[0] = by_t, sums->lanes[1] = by_h, sums->lanes[2] = by_w;
    sums->flush_after((to - from) / Vec<A>::N + 1);
}

// Adds a row to the sums at any stride; x is a scratch row.
template <class A, bool QUANTIZED>
void sum_row(const A* mixed, int64_t pitch, const Axis<A>& axis, Range range, const A* x, Sums<A>* sums) {
    using M = Mixes<true, QUANTIZED>;
    const A *w = mixed + M::BY_W * pitch, *h = mixed + M::BY_H * pitch, *t = mixed + M::BY_T * pitch;
    for (int64_t o = range.from; o < range.to; ++o) {
        const A *near = x + o * axis.stride + axis.first, blend = axis.soft[0] * near[0] + axis.soft[1] * near[1];
        sums->totals[0] += double(t[o]) * double(blend);
        sums->totals[1] += double(h[o]) * double(blend);
        sums->totals[2] += double(w[o]) * double(near[1] - near[0]);
    }
}

// A mixed row spread over the input's columns at any stride; `to` is a scratch row.
template <class A>
void spread_row(const A* mixed, const Axis<A>& axis, Range range, A* to) {
    fill<A>(to - 1, axis.in + 2, 0);
    for (int64_t o = range.from; o < range.to; ++o) {
        to[o * axis.stride + axis.first] = axis.weight[0] * mixed[o];
        to[o * axis.stride + axis.first + 1] = axis.weight[1] * mixed[o];
    }
}

// The second step for a block of rows that `any` gradient row reads.
template <class T, bool X, bool S, bool QUANTIZED>
void read_block(const Sizes& sizes, const Axis<Acc<T>>& axis, const bool* any, int64_t rows, const Acc<T>* mixes,
                Acc<T>* spread, const T* x, T* grad_x, Sums<Acc<T>>* sums) {
    using A = Acc<T>;
    using M = Mixes<S, QUANTIZED>;
    int64_t pitch = row_pitch<A>(sizes), width = sizes.in[2];
    Range range = reading_outputs(axis);
    A* const values = spread + ROWS * pitch;
    for (int64_t row = 0; row < rows; ++row) {
        if (X && !any[row]) zero(grad_x + row * width, width);
        if (!any[row]) continue;
        const A* mixed = mixes + row * M::COUNT * pitch;
        if (axis.stride == 1) {
            read_row<T, X, S, QUANTIZED>(mixed, pitch, axis, S ? x + row * width : nullptr,
                                         X ? grad_x + row * width : nullptr, sums);
            continue;
        }
        if (X) spread_row(mixed + M::INPUT * pitch, axis, range, spread + row * pitch);
        if (S) by_vectors<Vec<A>::N>(width, SACCADE_VISIT(j, n, seen) {
            store(values + row * pitch + j, load_n(x + row * width + j, n));
        });
    }
    for (int64_t row = 0; axis.stride != 1 && row < rows; ++row) {
        if (!any[row]) continue;
        if (S) sum_row<A, QUANTIZED>(mixes + row * M::COUNT * pitch, pitch, axis, range, values + row * pitch, sums);
        if (X) by_vectors<Vec<A>::N>(width, SACCADE_VISIT(j, n, seen) {
            store_n(grad_x + row * width + j, load(spread + row * pitch + j), n);
        });
    }
}

template <class T, bool X, bool S, bool QUANTIZED>
void backward_rows(const Sizes& sizes, const Axis<Acc<T>>* axes, const T* grad, const T* x, T* grad_x, double* part,
                   Acc<T>* scratch) {
    using A = Acc<T>;
    using M = Mixes<S, QUANTIZED>;
    int64_t pitch = row_pitch<A>(sizes);
    Taps* const heights = taps_of(sizes, scratch);
    scratch += Vec<A>::N;
    for (int64_t h = 0; h < sizes.in[1]; ++h) heights[h] = readers_of(axes[1], h, S);
    Sums<A> sums;
    for (int64_t t = 0; t < sizes.in[0]; ++t) {
        Taps frames = readers_of(axes[0], t, S);
        for (int64_t top = 0; top < sizes.in[1]; top += ROWS) {
            int64_t rows = min_of(ROWS, sizes.in[1] - top), offset = t * sizes.in_plane() + top * sizes.in[2];
            bool any[ROWS];
            for (int64_t row = 0; row < rows; ++row) {
                int64_t offsets[4];
                A coefficients[M::COUNT][4];
                int count = reader_rows<A, M>(axes, frames, heights[top + row], sizes, offsets, coefficients);
                any[row] = count > 0;
                const T* read[4] = {};
                A* mixed[M::COUNT];
                for (int k = 0; k < count; ++k) read[k] = grad + offsets[k];
                for (int m = 0; m < M::COUNT; ++m) mixed[m] = scratch + (row * M::COUNT + m) * pitch;
                if (count && frames.at[0] + 1 < sizes.out[0]) fetch<false>(read[0] + sizes.out_plane(), sizes.out[2]);
                if (t + 1 < sizes.in[0]) {
                    int64_t next = offset + sizes.in_plane() + row * sizes.in[2];
                    if (S) fetch<false>(x + next, sizes.in[2]);
                    if (X) fetch<true>(grad_x + next, sizes.in[2]);
                }
                if (count) mix_rows<T, M::COUNT>(count, read, coefficients, mixed, sizes.out[2]);
            }
            read_block<T, X, S, QUANTIZED>(sizes, axes[2], any, rows, scratch, scratch + 4 * ROWS * pitch,
                                           S ? x + offset : nullptr, X ? grad_x + offset : nullptr, &sums);
        }
    }
    sums.flush();
    if (S) memcpy(part, sums.totals, sizeof sums.totals);
}

}  // namespace
