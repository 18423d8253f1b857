// exp and sigmoid of whole vectors, for float and double: within 2 units in the last place.
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

// exp(x) for x <= 0: 2^n * exp(r) with |r| <= ln(2) / 2. NaN stays NaN.
template <class A>
SACCADE_INLINE typename Vec<A>::V exp_of_negative(typename Vec<A>::V x) {
    using V = typename Vec<A>::V;
    using E = ExpOf<A>;
    using Int = typename E::Int;
    x = x < E::LOWEST ? splat<A>(E::LOWEST) : x;
    V shifted = x * static_cast<A>(1.44269504088896340736) + E::ROUND;
    V n = shifted - E::ROUND;
    V r = x - n * E::LN2_HIGH;
    r = r - n * E::LN2_LOW;
    V sum = splat<A>(static_cast<A>(INVERSE_FACTORIAL[E::TERMS]));
#pragma GCC unroll 16
    for (int i = E::TERMS - 1; i >= 0; --i) sum = sum * r + static_cast<A>(INVERSE_FACTORIAL[i]);
    // 2^n in two factors: the result may be subnormal where 2^n is none of the normal numbers
    Int exponent = (Int)shifted - E::ROUND_BITS + 2 * E::BIAS;
    Int half = exponent >> 1;
    return sum * (V)(half << E::MANTISSA) * (V)((exponent - half) << E::MANTISSA);
}

// 1 / (1 + exp(-x)) without overflow, and exact for both tails.
template <class A>
SACCADE_INLINE typename Vec<A>::V sigmoid(typename Vec<A>::V x) {
    using V = typename Vec<A>::V;
    V e = exp_of_negative<A>(x < 0 ? x : -x);
    V numerator = x < 0 ? e : splat<A>(1);
    return numerator / (e + 1);
}

}  // namespace
