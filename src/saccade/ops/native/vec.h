// Vectors of the widest registers that the instruction set has, by the compiler's vector extension.
//
// Vec<float>::V is 16, 8 or 4 floats; Vec<double>::V as many bytes of doubles. Arithmetic is in float or double;
// 16-bit types are only loaded and stored. Acc<T> is the type to compute in: double for double, else float. A C cast
// between vectors of one size keeps the bits.
#pragma once

#include "core.h"

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

struct BFloat16 { uint16_t bits; };
struct Float16 { uint16_t bits; };

template <class T> struct AccOf { using type = float; };
template <> struct AccOf<double> { using type = double; };
template <class T> using Acc = typename AccOf<T>::type;

template <class A>
struct Vec {
    typedef A V __attribute__((vector_size(VECTOR_BYTES), may_alias));
    static constexpr int N = VECTOR_BYTES / static_cast<int>(sizeof(A));
};

constexpr int F32 = Vec<float>::N;
typedef uint32_t VecU32 __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t VecU16 __attribute__((vector_size(VECTOR_BYTES / 2)));

SACCADE_INLINE uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
SACCADE_INLINE float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

// One element. bfloat16 and float16 round to nearest even, as PyTorch does; NaN stays NaN.
SACCADE_INLINE float to_acc(float x) { return x; }
SACCADE_INLINE double to_acc(double x) { return x; }
SACCADE_INLINE float to_acc(BFloat16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
SACCADE_INLINE float to_acc(Float16 h) {
    // exponent and mantissa moved up, then rescaled by 2^112: subnormals come out right; inf and NaN are put back
    uint32_t rest = static_cast<uint32_t>(h.bits & 0x7fffu) << 13;
    float magnitude = float_of(rest) * float_of(0x77800000u);
    uint32_t special = (h.bits & 0x7c00u) == 0x7c00u ? (rest | 0x7f800000u) : bits_of(magnitude);
    return float_of(special | (static_cast<uint32_t>(h.bits & 0x8000u) << 16));
}

template <class T> SACCADE_INLINE T from_acc(Acc<T> x);
template <> SACCADE_INLINE float from_acc<float>(float x) { return x; }
template <> SACCADE_INLINE double from_acc<double>(double x) { return x; }
template <> SACCADE_INLINE BFloat16 from_acc<BFloat16>(float x) {
    uint32_t u = bits_of(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return BFloat16{static_cast<uint16_t>((u >> 16) | 0x40u)};
    return BFloat16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
template <> SACCADE_INLINE Float16 from_acc<Float16>(float x) {
    uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    uint32_t h;
    if (a > 0x7f800000u) h = 0x7e00u;                                  // NaN
    else if (a >= 0x477ff000u) h = 0x7c00u;                            // rounds to infinity
    else if (a < 0x38800000u) h = bits_of(float_of(a) + 0.5f) - 0x3f000000u;  // subnormal: the adder rounds
    else h = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    return Float16{static_cast<uint16_t>(h | sign)};
}

// A whole vector, unaligned.
template <class A> SACCADE_INLINE typename Vec<A>::V splat(A x) { return x - typename Vec<A>::V{}; }

SACCADE_INLINE Vec<float>::V load(const float* p) { Vec<float>::V v; memcpy(&v, p, sizeof v); return v; }
SACCADE_INLINE Vec<double>::V load(const double* p) { Vec<double>::V v; memcpy(&v, p, sizeof v); return v; }
SACCADE_INLINE Vec<float>::V load(const BFloat16* p) {
    VecU16 h; memcpy(&h, p, sizeof h);
    VecU32 u = __builtin_convertvector(h, VecU32) << 16;
    return (Vec<float>::V)u;
}
SACCADE_INLINE Vec<float>::V load(const Float16* p) {
#if defined(__AVX512F__)
    __m256i h; memcpy(&h, p, sizeof h);
    return (Vec<float>::V)_mm512_cvtph_ps(h);
#elif defined(__F16C__)
    __m128i h; memcpy(&h, p, sizeof h);
    return (Vec<float>::V)_mm256_cvtph_ps(h);
#else
    Vec<float>::V v;
    for (int i = 0; i < F32; ++i) v[i] = to_acc(p[i]);
    return v;
#endif
}

SACCADE_INLINE void store(float* p, Vec<float>::V v) { memcpy(p, &v, sizeof v); }
SACCADE_INLINE void store(double* p, Vec<double>::V v) { memcpy(p, &v, sizeof v); }
SACCADE_INLINE void store(BFloat16* p, Vec<float>::V v) {
    VecU32 u = (VecU32)v;
    VecU32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    VecU32 is_nan = (VecU32)((u & 0x7fffffffu) > 0x7f800000u);
    VecU16 h = __builtin_convertvector((is_nan & ((u >> 16) | 0x40u)) | (~is_nan & rounded), VecU16);
    memcpy(p, &h, sizeof h);
}
SACCADE_INLINE void store(Float16* p, Vec<float>::V v) {
#if defined(__AVX512F__)
    __m256i h = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    memcpy(p, &h, sizeof h);
#elif defined(__F16C__)
    __m128i h = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    memcpy(p, &h, sizeof h);
#else
    for (int i = 0; i < F32; ++i) p[i] = from_acc<Float16>(v[i]);
#endif
}

// The first n < N elements; the others read as 0 and are not touched when storing. Never touches memory behind p[n).
template <class T> SACCADE_INLINE typename Vec<Acc<T>>::V load_part(const T* p, int n) {
    T buffer[Vec<Acc<T>>::N] = {};
    memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
    return load(buffer);
}
template <class T> SACCADE_INLINE void store_part(T* p, typename Vec<Acc<T>>::V v, int n) {
    T buffer[Vec<Acc<T>>::N];
    store(buffer, v);
    memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
}
#if defined(__AVX512F__)
template <> SACCADE_INLINE Vec<float>::V load_part<float>(const float* p, int n) {
    return (Vec<float>::V)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
}
template <> SACCADE_INLINE void store_part<float>(float* p, Vec<float>::V v, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), (__m512)v);
}
template <> SACCADE_INLINE Vec<double>::V load_part<double>(const double* p, int n) {
    return (Vec<double>::V)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1u), p);
}
template <> SACCADE_INLINE void store_part<double>(double* p, Vec<double>::V v, int n) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1u), (__m512d)v);
}
// 16-bit types, from and to a whole buffer of the stack.
template <class T> SACCADE_INLINE Vec<float>::V load_part16(const T* p, int n) {
    T buffer[F32];
    __m256i h = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), p);
    memcpy(buffer, &h, sizeof h);
    return load(buffer);
}
template <class T> SACCADE_INLINE void store_part16(T* p, Vec<float>::V v, int n) {
    T buffer[F32];
    store(buffer, v);
    __m256i h;
    memcpy(&h, buffer, sizeof h);
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1u), h);
}
template <> SACCADE_INLINE Vec<float>::V load_part<BFloat16>(const BFloat16* p, int n) { return load_part16(p, n); }
template <> SACCADE_INLINE Vec<float>::V load_part<Float16>(const Float16* p, int n) { return load_part16(p, n); }
template <> SACCADE_INLINE void store_part<BFloat16>(BFloat16* p, Vec<float>::V v, int n) { store_part16(p, v, n); }
template <> SACCADE_INLINE void store_part<Float16>(Float16* p, Vec<float>::V v, int n) { store_part16(p, v, n); }
#endif

// Sum of a vector's elements, always in the same order.
template <class A> SACCADE_INLINE A sum_of(typename Vec<A>::V v) {
    A sum = 0;
    for (int i = 0; i < Vec<A>::N; ++i) sum += v[i];
    return sum;
}

}  // namespace
