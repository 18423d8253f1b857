// The four passes of batch_norm_act on a few vectors of the big tensors.
//
// Each kernel declares its coefficients, (B, C) each, and its number of sums. step() processes U vectors from value i of
// the big tensors; c points to the tables at the matching offset, `stride` apart, and likewise the sums.
#pragma once

#include "vec_exp.h"

namespace {

enum Activation { NONE = 0, RELU = 1, SILU = 2 };

// A whole vector, or the first n values of one: the rest reads as 0 and must be excluded from sums.
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

}  // namespace
