// Backward at stride 2 in width and 2 or more in height, as at the start of a stage.
//
// Every input row is read by one output row at most. So the gradient's planes are mixed in time, and then output row by
// output row: its two input rows are mixed in height for the sums, and its own spread is theirs, weighted.
#pragma once

#include "shift_rows.h"

namespace {

bool strided_fit(const Sizes& sizes) { return sizes.stride[1] >= 2 && sizes.stride[2] == 2; }

// Three scratch planes; behind each, room to read on by a vector.
template <class A>
int64_t strided_pitch(const Sizes& sizes) {
    return round_up(sizes.out_plane(), Vec<A>::N) + Vec<A>::N;
}

template <class A>
int64_t strided_bytes(const Sizes& sizes) {
    return strided_fit(sizes) ? 3 * strided_pitch<A>(sizes) * int64_t(sizeof(A)) : 0;
}

// a[0] b[0] a[1] b[1] ...
template <class A>
SACCADE_INLINE void store_pairs(A* p, typename Vec<A>::V a, typename Vec<A>::V b) {
    constexpr int N = Vec<A>::N;
#if defined(__clang__)
    typename Vec<A>::V low, high;
    for (int i = 0; i < N; ++i) {
        low[i] = i % 2 ? b[i / 2] : a[i / 2];
        high[i] = i % 2 ? b[(N + i) / 2] : a[(N + i) / 2];
    }
    store(p, low);
    store(p + N, high);
#else
    typedef Bits<A> B __attribute__((vector_size(VECTOR_BYTES)));
    B low, high;
    for (int i = 0; i < N; ++i) low[i] = i / 2 + i % 2 * N, high[i] = (N + i) / 2 + i % 2 * N;
    store(p, __builtin_shuffle(a, b, low));
    store(p + N, __builtin_shuffle(a, b, high));
#endif
}

// Row `source` of the mixed gradient, blended over the input's columns into the scratch row `to`.
template <class A>
void spread_pairs(const A* source, const Axis<A>& axis, Range range, A* to) {
    constexpr int N = Vec<A>::N;
    int64_t start = 2 * range.from + axis.first, end = 2 * range.to + axis.first;
    if (range.from == range.to) start = end = 0;
    for (int64_t i = 0; i < start; ++i) to[i] = 0;
    for (int64_t i = start; i < end; i += 2 * N) {  // runs over the end, into what is set next or not read
        typename Vec<A>::V v = load(source + range.from + (i - start) / 2);
        store_pairs(to + i, axis.weight[0] * v, axis.weight[1] * v);
    }
    for (int64_t i = end; i < axis.in; ++i) to[i] = 0;
}

// Adds an output row to the sums: `by_fraction` and `by_difference` are its two input rows blended, and subtracted.
template <class A>
void sum_pairs(const A* mixed, const A* derived, const Axis<A>& axis, Range range, const A* by_fraction,
               const A* by_difference, Sums<A>* sums) {
    using V = typename Vec<A>::V;
    int64_t start = 2 * range.from + axis.first, count = range.to - range.from;
    const A w0 = axis.soft[0], w1 = axis.soft[1];
    V by_t = sums->lanes[0], by_h = sums->lanes[1], by_w = sums->lanes[2];
    by_vectors<Vec<A>::N>(count, SACCADE_VISIT(j, n, seen) {
        V g = unseen<A>(load_n(mixed + range.from + j, n), seen);
        V d = unseen<A>(load_n(derived + range.from + j, n), seen);
        Pair<A> f = load_pairs(by_fraction + start + 2 * j), s = load_pairs(by_difference + start + 2 * j);
        by_t += d * (w0 * f.even + w1 * f.odd);
        by_h += g * (w0 * s.even + w1 * s.odd);
        by_w += g * (f.odd - f.even);
    });
    sums->lanes[0] = by_t, sums->lanes[1] = by_h, sums->lanes[2] = by_w;
    sums->flush_after(count / Vec<A>::N + 1);
}

// One plane of the input gradient and what it adds to the sums, from the planes that mix_frames makes.
template <class T, bool X, bool S, bool QUANTIZED>
void backward_strided_plane(const Sizes& sizes, const Axis<Acc<T>>* axes, const Acc<T>* const* mixed, const T* x,
                            T* grad_x, Acc<T>* scratch, bool more, Sums<Acc<T>>* sums) {
    using A = Acc<T>;
    const Axis<A>&height = axes[1], &column = axes[2];
    int64_t pitch = row_pitch<A>(sizes), width = sizes.in[2], filled = 0;
    Range rows = reading_outputs(height), range = reading_outputs(column);
    auto inside = [&](int64_t h) { return h >= 0 && h < sizes.in[1]; };
    for (int64_t top = rows.from; top < rows.to; top += ROWS) {
        int64_t bottom = min_of(top + ROWS, rows.to);
        for (int64_t o = top; o < bottom; ++o) {
            A* const own = scratch + (o - top) * 3 * pitch;
            if (X) spread_pairs(mixed[QUANTIZED ? 2 : 0] + o * sizes.out[2], column, range, own);
            if (!S) continue;
            const T* read[4] = {};
            A coefficients[2][4];
            A* const both[2] = {own + pitch, own + 2 * pitch};
            int count = 0;
            for (int d = 0; d < 2; ++d) {
                int64_t h = o * height.stride + height.first + d;
                if (!inside(h)) continue;
                read[count] = x + h * width;
                coefficients[0][count] = height.soft[d];
                coefficients[1][count++] = d ? 1 : -1;
            }
            if (more) fetch<false>(read[0] + sizes.in_plane(), 2 * width);
            mix_rows<T, 2>(count, read, coefficients, both, width);
        }
        for (int64_t o = top; o < bottom; ++o) {
            const A* own = scratch + (o - top) * 3 * pitch;
            int64_t at = o * sizes.out[2];
            if (S) sum_pairs(mixed[0] + at, mixed[1] + at, column, range, own + pitch, own + 2 * pitch, sums);
            for (int d = 0; X && d < 2; ++d) {
                int64_t h = o * height.stride + height.first + d;
                if (!inside(h)) continue;
                T* row = grad_x + h * width;
                if (more) fetch<true>(row + sizes.in_plane(), width);
                zero(grad_x + filled * width, (h - filled) * width);
                filled = h + 1;
                by_vectors<Vec<A>::N>(width, SACCADE_VISIT(j, n, seen) {
                    store_n(row + j, height.weight[d] * load(own + j), n);
                });
            }
        }
    }
    if (X) zero(grad_x + filled * width, (sizes.in[1] - filled) * width);
}

template <class T, bool X, bool S, bool QUANTIZED>
void backward_strided(const Sizes& sizes, const Axis<Acc<T>>* axes, const T* grad, const T* x, T* grad_x, double* part,
                      Acc<T>* rows, Acc<T>* planes) {
    using A = Acc<T>;
    int64_t pitch = strided_pitch<A>(sizes), plane = sizes.in_plane();
    A* const mixed[3] = {planes, planes + pitch, planes + 2 * pitch};
    Sums<A> sums;
    for (int64_t t = 0; t < sizes.in[0]; ++t) {
        T* to = X ? grad_x + t * plane : nullptr;
        if (mix_frames<T, S, QUANTIZED>(sizes, axes[0], t, grad, mixed))
            backward_strided_plane<T, X, S, QUANTIZED>(sizes, axes, mixed, S ? x + t * plane : nullptr, to,
                                                       rows + Vec<A>::N, t + 1 < sizes.in[0], &sums);
        else if (X) zero(to, plane);
    }
    sums.flush();
    if (S) memcpy(part, sums.totals, sizeof sums.totals);
}

}  // namespace
