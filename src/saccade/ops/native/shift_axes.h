// Shared by the paths of the shift: the geometry of one channel, and vector loops. See shift.cpp.
#pragma once

#include "vec.h"

namespace {

constexpr int64_t FAR = int64_t(1) << 40;  // a shift beyond this is beyond every frame

// Clips are contiguous (B, C, T, H, W); the axes T, H, W have the numbers 0, 1, 2.
struct Sizes {
    int64_t clips, channels, in[3], out[3], stride[3], padding[3];
    int64_t in_plane() const { return in[1] * in[2]; }
    int64_t out_plane() const { return out[1] * out[2]; }
};

// One axis of one channel's shift. Neighbour d (0 or 1) of output o is the input at o * stride + first + d. `soft` are
// the neighbours' weights, `weight` those in use: the same, or 1 for the nearer one where the shift is rounded.
template <class A>
struct Axis {
    int64_t first, stride, in, out;
    A soft[2], weight[2];
};

// False if the shift is not finite.
template <class A>
bool read_shift(const A* shift, const Sizes& sizes, int64_t channel, bool quantize, Axis<A>* axes) {
    bool finite = true;
    for (int a = 0; a < 3; ++a) {
        A value = shift[a * sizes.channels + channel];
        A whole = sizeof(A) == 4 ? A(__builtin_floorf(float(value))) : A(__builtin_floor(double(value)));
        A r = value - whole;
        finite = finite && r == r;
        int64_t near = whole >= A(FAR) ? FAR : whole <= -A(FAR) ? -FAR : whole == whole ? int64_t(whole) : 0;
        axes[a] = Axis<A>{near - sizes.padding[a], sizes.stride[a], sizes.in[a], sizes.out[a], {1 - r, r}, {1 - r, r}};
        if (quantize) {
            axes[a].weight[0] = r >= A(0.5) ? 0 : 1;
            axes[a].weight[1] = r >= A(0.5) ? 1 : 0;
        }
    }
    return finite;
}

// The at most two positions on the other side that read a position, and as which neighbour.
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

// The shift's gradient needs the readers of weight 0 too.
template <class A>
Taps readers_of(const Axis<A>& axis, int64_t input, bool weightless_too) {
    Taps taps{};
    for (int d = 0; d < 2; ++d) {
        int64_t n = input - axis.first - d;
        if (axis.stride > 1) n = n % axis.stride != 0 ? -1 : n / axis.stride;
        if (n < 0 || n >= axis.out || (axis.weight[d] == 0 && !weightless_too)) continue;
        taps.at[taps.count] = n;
        taps.which[taps.count++] = d;
    }
    return taps;
}

template <class T>
void zero(T* p, int64_t n) {
    if (n > 0) memset(static_cast<void*>(p), 0, static_cast<size_t>(n) * sizeof(T));
}

// Prefetches n elements that are needed a plane later: hardware prefetching stops at every page.
template <bool WRITE, class T>
SACCADE_INLINE void fetch(const T* p, int64_t n) {
    const char* byte = reinterpret_cast<const char*>(p);
    for (int64_t i = 0; i < n * int64_t(sizeof(T)); i += 64) __builtin_prefetch(byte + i, WRITE, 2);
}

template <class T>
void fill(T* p, int64_t n, T value) {
    for (int64_t i = 0; i < n; ++i) p[i] = value;
}

// Covers [0, width) with visit(j, n, seen): elements j to j + n, of which the first `seen` came up before. n is a whole
// vector, so that the end of a row needs no partial loads, unless the row is shorter.
template <int N, class F>
SACCADE_INLINE void by_vectors(int64_t width, F&& visit) {
    int64_t j = 0;
    for (; j + N <= width; j += N) visit(j, N, 0);
    if (j == width) return;
    if (width >= N) visit(width - N, N, static_cast<int>(j + N - width));
    else visit(0, static_cast<int>(width), 0);
}

#define SACCADE_VISIT(j, n, seen) [&](int64_t j, int n, [[maybe_unused]] int seen) __attribute__((always_inline))

template <class T>
SACCADE_INLINE typename Vec<Acc<T>>::V load_n(const T* p, int n) {
    return n == Vec<Acc<T>>::N ? load(p) : load_part(p, n);
}

template <class T>
SACCADE_INLINE void store_n(T* p, typename Vec<Acc<T>>::V v, int n) {
    if (n == Vec<Acc<T>>::N) store(p, v);
    else store_part(p, v, n);
}

template <class A> struct BitsOf { using type = int32_t; };
template <> struct BitsOf<double> { using type = int64_t; };
template <class A> using Bits = typename BitsOf<A>::type;

template <class A>
SACCADE_INLINE typename Vec<A>::V keep(typename Vec<A>::V v, const Bits<A>* mask) {
    typedef Bits<A> B __attribute__((vector_size(VECTOR_BYTES)));
    B bits;
    memcpy(&bits, mask, sizeof bits);
    return (typename Vec<A>::V)((B)v & bits);
}

// v without its first `seen` elements.
template <class A>
SACCADE_INLINE typename Vec<A>::V unseen(typename Vec<A>::V v, int seen) {
    constexpr int N = Vec<A>::N;
    struct Table {
        Bits<A> bits[2 * N];
        constexpr Table() : bits() {
            for (int i = N; i < 2 * N; ++i) bits[i] = -1;
        }
    };
    static constexpr Table table;
    return seen ? keep<A>(v, table.bits + N - seen) : v;
}

// Sums over vectors, as accurate as short ones: passed on to double before they grow long.
template <class A>
struct Sums {
    typename Vec<A>::V lanes[3] = {};
    double totals[3] = {};
    int64_t added = 0;

    void flush_after(int64_t vectors) {
        if ((added += vectors) >= 128) flush();
    }
    void flush() {
        for (int a = 0; a < 3; ++a) {
            totals[a] += double(sum_of<A>(lanes[a]));
            lanes[a] = typename Vec<A>::V{};
        }
        added = 0;
    }
};

// mixed[m][j] = sum over k of coefficients[m][k] * rows[k][j]. Behind a row shorter than a vector it writes zeros.
template <class T, int K, int M>
void mix(const T* const* rows, const Acc<T> (*coefficients)[4], Acc<T>* const* mixed, int64_t width) {
    using A = Acc<T>;
    by_vectors<Vec<A>::N>(width, SACCADE_VISIT(j, n, seen) {
        typename Vec<A>::V sums[M] = {};
        for (int k = 0; k < K; ++k) {
            typename Vec<A>::V v = load_n(rows[k] + j, n);
            for (int m = 0; m < M; ++m) sums[m] += coefficients[m][k] * v;
        }
        for (int m = 0; m < M; ++m) store(mixed[m] + j, sums[m]);
    });
}

template <class T, int M>
SACCADE_INLINE void mix_rows(int count, const T* const* rows, const Acc<T> (*coefficients)[4], Acc<T>* const* mixed,
                             int64_t width) {
    if (count == 1) mix<T, 1, M>(rows, coefficients, mixed, width);
    else if (count == 2) mix<T, 2, M>(rows, coefficients, mixed, width);
    else mix<T, 4, M>(rows, coefficients, mixed, width);
}

// The gradient's planes that input frame t is read by, mixed into scratch planes: by the fraction (without S, by the
// weights in use); with S then their derivative by the time shift; and if QUANTIZED by the weights in use. False: there
// are none.
template <class T, bool S, bool QUANTIZED>
bool mix_frames(const Sizes& sizes, const Axis<Acc<T>>& axis, int64_t t, const T* grad, Acc<T>* const* mixed) {
    using A = Acc<T>;
    constexpr int COUNT = !S ? 1 : QUANTIZED ? 3 : 2;
    Taps frames = readers_of(axis, t, S);
    const T* planes[4] = {};
    A weights[3][4] = {};
    for (int k = 0; k < frames.count; ++k) {
        int d = frames.which[k];
        planes[k] = grad + frames.at[k] * sizes.out_plane();
        weights[0][k] = S ? axis.soft[d] : axis.weight[d];
        weights[1][k] = d ? 1 : -1;
        weights[2][k] = axis.weight[d];
    }
    if (frames.count) mix_rows<T, COUNT>(frames.count, planes, weights, mixed, sizes.out_plane());
    return frames.count > 0;
}

}  // namespace
