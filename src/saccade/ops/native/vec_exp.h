// exp and sigmoid of whole vectors, for float and double, within 2 ulp.
#pragma once

#include "vec.h"

namespace {

template <class A> struct ExpOf;
template <> struct ExpOf<float> {
    typedef int32_t Int __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr float LOWEST = -104.0f;  // below it, exp is 0
    static constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    static constexpr int32_t ROUND_BITS = 0x4b400000;
    static constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;  // times an exponent, HIGH is exact
    static constexpr int BIAS = 127, MANTISSA = 23, TERMS = 7;  // of the power series; the next is below 1e-8
};
template <> struct ExpOf<double> {
    typedef int64_t Int __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr double LOWEST = -746.0;
    static constexpr double ROUND = 6755399441055744.0;
    static constexpr int64_t ROUND_BITS = 0x4338000000000000;
    static constexpr double LN2_HIGH = 6.93145751953125e-1, LN2_LOW = 1.42860682030941723212e-6;
    static constexpr int BIAS = 1023, MANTISSA = 52, TERMS = 13;  // the next is below 1e-17
};

constexpr double INVERSE_FACTORIAL[] = {
    1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
    1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0,
};

// x * 2^n for the whole number n = shifted - ROUND, in two factors: the result may be subnormal where 2^n underflows.
template <class A>
SACCADE_INLINE typename Vec<A>::V scaled(typename Vec<A>::V x, typename Vec<A>::V shifted) {
    using V = typename Vec<A>::V;
    using E = ExpOf<A>;
    typename E::Int exponent = (typename E::Int)shifted - E::ROUND_BITS + 2 * E::BIAS, half = exponent >> 1;
    return x * (V)(half << E::MANTISSA) * (V)((exponent - half) << E::MANTISSA);
}
#if defined(__AVX512F__)
template <> SACCADE_INLINE Vec<float>::V scaled<float>(Vec<float>::V x, Vec<float>::V shifted) {
    return (Vec<float>::V)_mm512_scalef_ps((__m512)x, (__m512)(shifted - ExpOf<float>::ROUND));
}
template <> SACCADE_INLINE Vec<double>::V scaled<double>(Vec<double>::V x, Vec<double>::V shifted) {
    return (Vec<double>::V)_mm512_scalef_pd((__m512d)x, (__m512d)(shifted - ExpOf<double>::ROUND));
}
#endif

// Each step is done for U vectors before the next: a single vector's chain of dependent steps is longer than what a
// processor looks ahead.
#define SACCADE_EACH _Pragma("GCC unroll 8") for (int k = 0; k < U; ++k)

// exp(x) for x <= 0: 2^n * exp(r) with |r| <= ln(2) / 2. NaN stays NaN.
template <class A, int U>
SACCADE_INLINE void exp_of_negative(const typename Vec<A>::V (&x)[U], typename Vec<A>::V (&result)[U]) {
    using V = typename Vec<A>::V;
    using E = ExpOf<A>;
    V r[U], shifted[U];
    SACCADE_EACH r[k] = x[k] < E::LOWEST ? splat<A>(E::LOWEST) : x[k];
    SACCADE_EACH shifted[k] = r[k] * static_cast<A>(1.44269504088896340736) + E::ROUND;
    SACCADE_EACH r[k] -= (shifted[k] - E::ROUND) * E::LN2_HIGH;
    SACCADE_EACH r[k] -= (shifted[k] - E::ROUND) * E::LN2_LOW;
    SACCADE_EACH result[k] = r[k] * static_cast<A>(INVERSE_FACTORIAL[E::TERMS]) +
                             static_cast<A>(INVERSE_FACTORIAL[E::TERMS - 1]);
#pragma GCC unroll 16
    for (int i = E::TERMS - 2; i >= 0; --i) {
        SACCADE_EACH result[k] = result[k] * r[k] + static_cast<A>(INVERSE_FACTORIAL[i]);
    }
    SACCADE_EACH result[k] = scaled<A>(result[k], shifted[k]);
}

// 1 / (1 + exp(-x)) without overflow, and exact for both tails.
template <class A, int U>
SACCADE_INLINE void sigmoid(const typename Vec<A>::V (&x)[U], typename Vec<A>::V (&result)[U]) {
    typename Vec<A>::V e[U];
    SACCADE_EACH result[k] = x[k] < 0 ? x[k] : -x[k];
    exp_of_negative<A>(result, e);
    SACCADE_EACH result[k] = x[k] < 0 ? e[k] : splat<A>(1);
    SACCADE_EACH result[k] /= e[k] + 1;
}

}  // namespace
