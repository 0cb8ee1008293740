// Four doubles, four floats and what the blend does with them, as GCC's and Clang's vector extensions: one text for SSE2,
// AVX2, AVX-512 and NEON. Intrinsics stand only where the extensions have no word for an instruction.
#pragma once
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

typedef double D4 __attribute__((vector_size(32)));
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
typedef uint8_t B4 __attribute__((vector_size(4)));
typedef uint16_t H4 __attribute__((vector_size(8)));
typedef uint64_t Q4 __attribute__((vector_size(32)));
typedef uint32_t W8 __attribute__((vector_size(32)));

// Four values out of the eight of two vectors.
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, I4{__VA_ARGS__})
#endif

template <class To, class From> inline To load_as(const From *from)
{
    To value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline D4 all(double value) { return D4{value, value, value, value}; }

// Four values that lie side by side, as doubles; exact.
#if defined(__AVX2__)
inline D4 widen(const uint8_t *from)     // the bits planted under 2^52: two operations fewer than by way of int32
{
    const Q4 planted = (Q4)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(load_as<int32_t>(from))) | 0x4330000000000000ull;
    return (D4)planted - 4503599627370496.0;
}
#else
inline D4 widen(const uint8_t *from)
{
    return __builtin_convertvector(__builtin_convertvector(load_as<B4>(from), I4), D4);
}
#endif
inline D4 widen(const uint16_t *from) { return __builtin_convertvector(__builtin_convertvector(load_as<H4>(from), I4), D4); }
inline D4 widen(const float *from) { return __builtin_convertvector(load_as<F4>(from), D4); }
inline D4 widen(const double *from) { return load_as<D4>(from); }

// Four values that lie anywhere.
inline D4 widen(uint8_t a, uint8_t b, uint8_t c, uint8_t d) { return __builtin_convertvector(I4{a, b, c, d}, D4); }
inline D4 widen(uint16_t a, uint16_t b, uint16_t c, uint16_t d) { return __builtin_convertvector(I4{a, b, c, d}, D4); }
inline D4 widen(float a, float b, float c, float d) { return __builtin_convertvector(F4{a, b, c, d}, D4); }
inline D4 widen(double a, double b, double c, double d) { return D4{a, b, c, d}; }

// The greater and the lesser of two; `b` where `a` is NaN. The compiler does not find the one instruction.
#if defined(__AVX__)
inline D4 higher(D4 a, D4 b) { return (D4)_mm256_max_pd((__m256d)a, (__m256d)b); }
inline D4 lower(D4 a, D4 b) { return (D4)_mm256_min_pd((__m256d)a, (__m256d)b); }
#else
inline D4 higher(D4 a, D4 b) { return a > b ? a : b; }
inline D4 lower(D4 a, D4 b) { return a < b ? a : b; }
#endif
inline I4 truncated(D4 value) { return __builtin_convertvector(value, I4); }

inline void narrow(float *to, D4 value)
{
    const F4 narrowed = __builtin_convertvector(value, F4);
    std::memcpy(to, &narrowed, sizeof narrowed);
}
inline void narrow(double *to, D4 value) { std::memcpy(to, &value, sizeof value); }

// a * b + c, rounded once. HAS_FMA says whether that is an instruction; without it the blend takes SciPy's order at once.
#if defined(__FMA__)
constexpr bool HAS_FMA = true;
inline D4 fused(D4 a, D4 b, D4 c) { return (D4)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
#elif defined(__aarch64__)
constexpr bool HAS_FMA = true;
inline D4 fused(D4 a, D4 b, D4 c)
{
    typedef double D2 __attribute__((vector_size(16)));
    D2 x[2], y[2], z[2];
    std::memcpy(x, &a, sizeof a);
    std::memcpy(y, &b, sizeof b);
    std::memcpy(z, &c, sizeof c);
    for (int half = 0; half < 2; ++half) z[half] = (D2)vfmaq_f64((float64x2_t)z[half], (float64x2_t)x[half], (float64x2_t)y[half]);
    std::memcpy(&c, z, sizeof c);
    return c;
}
#else
constexpr bool HAS_FMA = false;
inline D4 fused(D4 a, D4 b, D4 c) { return a * b + c; }      // never asked for
#endif

// Whether one of the sums that were shown lies next to the middle of two floats: the test is is_near_tie of sampling.cuh, of
// four at once. A double's low 29 bits are what a float does not have: brought to the top and moved so that the middle
// becomes 0, "next to" is an unsigned comparison, and the least one of several sums answers for all.
class TieWatch {
    W8 least_ = ~W8{};

public:
    void see(D4 sum)
    {
        const Q4 moved = ((Q4)sum << 35) - ((0x10000000ull - 16) << 35);
        const W8 words = (W8)moved;
#if defined(__AVX2__)
        least_ = (W8)_mm256_min_epu32((__m256i)least_, (__m256i)words);
#else
        least_ = words < least_ ? words : least_;
#endif
    }
    bool fired() const       // the upper words count; a few sums too many are no harm
    {
        constexpr uint32_t limit = (33u << 3) - 1;
#if defined(__AVX2__)
        const __m256i least = (__m256i)least_, most = _mm256_set1_epi32(limit);
        return _mm256_movemask_pd((__m256d)_mm256_cmpeq_epi32(_mm256_min_epu32(least, most), least)) != 0;
#else
        return least_[1] <= limit || least_[3] <= limit || least_[5] <= limit || least_[7] <= limit;
#endif
    }
};

// floor; where there is no instruction for it, of numbers below 2^51: adding 1.5 * 2^52 rounds to the nearest whole number.
#if defined(__AVX__)
constexpr double FLOOR_LIMIT = 1e300;
inline D4 floored(D4 value) { return (D4)_mm256_floor_pd((__m256d)value); }
inline double floored(double value) { return __builtin_floor(value); }
#elif defined(__aarch64__)
constexpr double FLOOR_LIMIT = 1e300;
inline D4 floored(D4 value)
{
    for (int lane = 0; lane < 4; ++lane) value[lane] = __builtin_floor(value[lane]);
    return value;
}
inline double floored(double value) { return __builtin_floor(value); }
#else
constexpr double FLOOR_LIMIT = 2251799813685248.0;
inline D4 floored(D4 value)
{
    const D4 nearest = (value + 6755399441055744.0) - 6755399441055744.0;
    return nearest - (nearest > value ? all(1.0) : D4{});
}
inline double floored(double value)
{
    const double nearest = (value + 6755399441055744.0) - 6755399441055744.0;
    return nearest - (nearest > value ? 1.0 : 0.0);
}
#endif

} // namespace
