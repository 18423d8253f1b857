// Shifting whole planes: for small ones that are not strided, whose rows are too short to be worth a loop.
//
// A plane is one long row here: moving it by (h, w) is moving the row by h * W + w, and zeros before and behind it are
// the rows above and below the frame. The columns that then hold values of a neighbouring row are masked out.
// The planes are mixed in time first, into scratch planes, and then blended in height and width.
#pragma once

#include "shift_axes.h"

namespace {

constexpr int64_t PLANE_LIMIT = 4096;  // elements; above it the scratch planes leave the first-level cache

constexpr int64_t PAGE = 1024;         // elements; smaller planes need no fetching ahead

bool planes_fit(const Sizes& sizes) {
    return sizes.stride[1] == 1 && sizes.stride[2] == 1 && sizes.padding[2] == 0 && sizes.in_plane() <= PLANE_LIMIT &&
           sizes.out_plane() <= PLANE_LIMIT;
}

// Zeros before and behind a scratch plane: room for shifts by about three rows.
template <class A>
int64_t plane_margin(const Sizes& sizes) {
    return round_up(4 * sizes.in[2] + 2 * Vec<A>::N, Vec<A>::N);
}

template <class A>
int64_t plane_pitch(const Sizes& sizes) {
    return round_up(max_of(sizes.in_plane(), sizes.out_plane()), Vec<A>::N) + 2 * plane_margin<A>(sizes);
}

// Three scratch planes and two masks.
template <class A>
int64_t planes_bytes(const Sizes& sizes) {
    return planes_fit(sizes) ? 5 * plane_pitch<A>(sizes) * int64_t(sizeof(A)) : 0;
}

template <class A>
int64_t plane_offset(const Axis<A>* axes, const Sizes& sizes) {
    return axes[1].first * sizes.in[2] + axes[2].first;
}

template <class A>
bool near_enough(const Axis<A>* axes, const Sizes& sizes, bool backward) {
    if (axes[1].first > FAR / 4096 || axes[1].first < -FAR / 4096) return false;
    int64_t offset = plane_offset(axes, sizes), margin = plane_margin<A>(sizes), more = sizes.in[2] + 1 + Vec<A>::N;
    int64_t read = backward ? sizes.out_plane() : sizes.in_plane();
    int64_t made = backward ? sizes.in_plane() : sizes.out_plane();
    if (backward) offset = -offset - sizes.in[2] - 1;
    return offset >= -margin && made + offset + more <= read + margin;
}

// Bits for every position of a plane: whether column + offset is one.
template <class B>
void column_mask(B* mask, int64_t plane, int64_t width, int64_t offset) {
    fill<B>(mask, plane, -1);
    int64_t before = min_of(max_of(-offset, 0), width), behind = max_of(min_of(width - offset, width), 0);
    for (int64_t row = 0; row < plane; row += width) {
        for (int64_t w = 0; w < before; ++w) mask[row + w] = 0;
        for (int64_t w = behind; w < width; ++w) mask[row + w] = 0;
    }
}

template <class T>
void forward_planes(const Sizes& sizes, const Axis<Acc<T>>* axes, const T* x, T* out, Acc<T>* scratch) {
    using A = Acc<T>;
    using V = typename Vec<A>::V;
    int64_t pitch = plane_pitch<A>(sizes), width = sizes.in[2], plane = sizes.out_plane();
    A* const mixed = scratch + plane_margin<A>(sizes);
    auto* near = reinterpret_cast<Bits<A>*>(scratch + 3 * pitch);
    auto* next = reinterpret_cast<Bits<A>*>(scratch + 4 * pitch);
    column_mask(near, plane, width, axes[2].first);
    column_mask(next, plane, width, axes[2].first + 1);
    const A *source = mixed + plane_offset(axes, sizes), *h = axes[1].weight, *w = axes[2].weight;
    for (int64_t t = 0; t < sizes.out[0]; ++t, out += plane) {
        Taps frames = sources_of(axes[0], t);
        if (frames.count == 0) {
            zero(out, plane);
            continue;
        }
        const T* planes[4] = {};
        A weights[1][4] = {};
        for (int k = 0; k < frames.count; ++k) {
            planes[k] = x + frames.at[k] * sizes.in_plane();
            weights[0][k] = axes[0].weight[frames.which[k]];
        }
        mix_rows<T, 1>(frames.count, planes, weights, &mixed, sizes.in_plane());
        const T* following = planes[frames.count - 1] + sizes.in_plane();
        const bool ahead = plane > PAGE;
        by_vectors<Vec<A>::N>(plane, SACCADE_VISIT(j, n, seen) {
            const A* p = source + j;
            if (ahead) fetch<false>(following + j, 1), fetch<true>(out + plane + j, 1);
            V a = h[0] * load(p) + h[1] * load(p + width);
            V b = h[0] * load(p + 1) + h[1] * load(p + width + 1);
            store_n(out + j, w[0] * keep<A>(a, near + j) + w[1] * keep<A>(b, next + j), n);
        });
    }
}

// One plane of the input gradient, and what it adds to the sums, from the planes that mix_frames makes. `following` is
// the plane of the output's gradient to be wanted next.
template <class T, bool X, bool S, bool QUANTIZED>
void backward_plane(const Sizes& sizes, const Axis<Acc<T>>* axes, const Acc<T>* mixed, const Bits<Acc<T>>* near,
                    const Bits<Acc<T>>* next, const T* following, const T* x, T* grad_x, Sums<Acc<T>>* sums) {
    using A = Acc<T>;
    using V = typename Vec<A>::V;
    int64_t pitch = plane_pitch<A>(sizes), width = sizes.in[2], plane = sizes.in_plane();
    const A* source = mixed - plane_offset(axes, sizes);
    const A *h = axes[1].soft, *w = axes[2].soft, *hard_h = axes[1].weight, *hard_w = axes[2].weight;
    V by_t = sums->lanes[0], by_h = sums->lanes[1], by_w = sums->lanes[2];
    const bool ahead = plane > PAGE;
    by_vectors<Vec<A>::N>(plane, SACCADE_VISIT(j, n, seen) {
        const A* p = source + j;
        if (ahead) fetch<false>(following + j, 1);
        if (ahead && S) fetch<false>(x + plane + j, 1);
        if (ahead && X) fetch<true>(grad_x + plane + j, 1);
        if (X && (QUANTIZED || !S)) {
            const A* q = QUANTIZED && S ? p + 2 * pitch : p;
            V a = hard_h[0] * load(q) + hard_h[1] * load(q - width);
            V b = hard_h[0] * load(q - 1) + hard_h[1] * load(q - width - 1);
            store_n(grad_x + j, hard_w[0] * keep<A>(a, near + j) + hard_w[1] * keep<A>(b, next + j), n);
        }
        if (S) {
            V a0 = keep<A>(load(p), near + j), a1 = keep<A>(load(p - width), near + j);
            V b0 = keep<A>(load(p - 1), next + j), b1 = keep<A>(load(p - width - 1), next + j);
            V a = h[0] * a0 + h[1] * a1, b = h[0] * b0 + h[1] * b1;
            if (X && !QUANTIZED) store_n(grad_x + j, w[0] * a + w[1] * b, n);
            V v = unseen<A>(load_n(x + j, n), seen);
            by_w += v * (b - a);
            by_h += v * (w[0] * (a1 - a0) + w[1] * (b1 - b0));
            const A* d = p + pitch;
            V c = h[0] * load(d) + h[1] * load(d - width), e = h[0] * load(d - 1) + h[1] * load(d - width - 1);
            by_t += v * (w[0] * keep<A>(c, near + j) + w[1] * keep<A>(e, next + j));
        }
    });
    sums->lanes[0] = by_t, sums->lanes[1] = by_h, sums->lanes[2] = by_w;
    sums->flush_after(plane / Vec<A>::N + 1);
}

template <class T, bool X, bool S, bool QUANTIZED>
void backward_planes(const Sizes& sizes, const Axis<Acc<T>>* axes, const T* grad, const T* x, T* grad_x, double* part,
                     Acc<T>* scratch) {
    using A = Acc<T>;
    int64_t pitch = plane_pitch<A>(sizes), plane = sizes.in_plane();
    A* const first = scratch + plane_margin<A>(sizes);
    A* const mixed[3] = {first, first + pitch, first + 2 * pitch};
    auto* near = reinterpret_cast<Bits<A>*>(scratch + 3 * pitch);
    auto* next = reinterpret_cast<Bits<A>*>(scratch + 4 * pitch);
    column_mask(near, plane, sizes.in[2], -axes[2].first);
    column_mask(next, plane, sizes.in[2], -axes[2].first - 1);
    Sums<A> sums;
    for (int64_t t = 0; t < sizes.in[0]; ++t) {
        if (!mix_frames<T, S, QUANTIZED>(sizes, axes[0], t, grad, mixed)) {
            if (X) zero(grad_x + t * plane, plane);
            continue;
        }
        backward_plane<T, X, S, QUANTIZED>(sizes, axes, first, near, next, grad + min_of(t + 1, sizes.out[0] - 1) * sizes.out_plane(), S ? x + t * plane : nullptr,
                                           X ? grad_x + t * plane : nullptr, &sums);
    }
    sums.flush();
    if (S) memcpy(part, sums.totals, sizeof sums.totals);
}

}  // namespace
