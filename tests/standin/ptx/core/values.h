// What the bits of a register mean, and where PTX's arithmetic is not C++'s.
//
// A register is 64 bits. A signed value is kept extended by its sign, any other by zeros, so that a narrower read takes the
// low bits and a wider one (which PTX allows after ld and cvt only) sees what PTX says it sees.
#pragma once

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace ptx {

using Bits = std::uint64_t;

static_assert(std::endian::native == std::endian::little, "a register's low bytes are its first");
static_assert(std::numeric_limits<double>::is_iec559 && std::numeric_limits<float>::is_iec559);

struct Half {                    // .f16: moved and converted, never computed with
    std::uint16_t bits;
};

template <class T> constexpr bool is_floating = std::is_floating_point_v<T> || std::is_same_v<T, Half>;

template <class T> T value_of(Bits bits)
{
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T> Bits bits_of(T value)
{
    if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) return (Bits)(std::int64_t)value;
    Bits bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}

// .ftz: a subnormal float counts as a zero of its sign. Doubles and integers have no such thing.
template <class T> T flush(T value)
{
    if constexpr (std::is_same_v<T, float>) {
        if (std::fpclassify(value) == FP_SUBNORMAL) return std::copysign(0.0f, value);
    }
    return value;
}

// A GPU's float arithmetic has one NaN; its double arithmetic hands payloads on, as a CPU's does.
template <class T> T canonical(T value)
{
    if constexpr (std::is_same_v<T, float>) {
        if (std::isnan(value)) return std::bit_cast<float>(0x7fffffffu);
    }
    return value;
}

// The rounding of everything computed while it lives. The operands come from memory and the results go there, and neither
// crosses the opaque calls, so the compiler cannot take an operation out of their middle.
class Rounding {
public:
    explicit Rounding(int mode) : is_set(mode != FE_TONEAREST) { if (is_set) std::fesetround(mode); }
    ~Rounding() { if (is_set) std::fesetround(FE_TONEAREST); }
    Rounding(const Rounding &) = delete;
    Rounding &operator=(const Rounding &) = delete;

private:
    const bool is_set;
};

// To nearest even by way of the integer that the significand is; exact from a float as from a double.
inline Half to_half(double value)
{
    if (std::isnan(value)) return {0x7fff};
    const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(value);
    if (size >= 65520.0) return {(std::uint16_t)(sign | 0x7c00)};           // half a step above the largest
    int exponent = -14;                                                     // of the smallest normal and all below
    if (size >= 0x1p-14) exponent = std::ilogb(size);
    const int steps = (int)std::nearbyint(std::ldexp(size, 10 - exponent)); // 1024 to 2048, or less where subnormal
    return {(std::uint16_t)(sign | (((exponent + 14) << 10) + steps))};     // a carry runs into the exponent, as it must
}

inline float from_half(Half half)
{
    const int exponent = half.bits >> 10 & 31, fraction = half.bits & 1023;
    float size;
    if (exponent == 31) size = fraction ? std::bit_cast<float>(0x7fffffffu) : std::numeric_limits<float>::infinity();
    else size = exponent ? std::ldexp(1024.0f + (float)fraction, exponent - 25) : std::ldexp((float)fraction, -24);
    return half.bits & 0x8000 ? -size : size;
}

// min and max: a NaN gives way to a number, and -0 lies below +0.
template <class T> T lower(T a, T b)
{
    if constexpr (is_floating<T>) {
        if (std::isnan(a)) return canonical(b);
        if (std::isnan(b)) return a;
        if (a == b) return std::signbit(a) ? a : b;
    }
    return b < a ? b : a;
}

template <class T> T higher(T a, T b)
{
    if constexpr (is_floating<T>) {
        if (std::isnan(a)) return canonical(b);
        if (std::isnan(b)) return a;
        if (a == b) return std::signbit(a) ? b : a;
    }
    return b > a ? b : a;
}

// A whole number kept in a float, to an integer: what lies outside stops at the ends.
template <class To, class From> To saturated(From whole)
{
    using Limits = std::numeric_limits<To>;
    if (std::isnan(whole)) {
        const bool is_zero = std::is_same_v<From, float> && sizeof(To) < 8;
        return is_zero ? To(0) : (To)((std::make_unsigned_t<To>)1 << (8 * sizeof(To) - 1));
    }
    const From past = std::ldexp(From(1), Limits::digits);                  // one more than the largest, exactly
    if (whole >= past) return Limits::max();
    if (std::is_signed_v<To> ? whole < -past : whole < 0) return Limits::min();
    return (To)whole;
}

template <class To, class From> To clamped(From value)                      // cvt.sat between integers
{
    using Limits = std::numeric_limits<To>;
    if (std::cmp_less(value, Limits::min())) return Limits::min();
    if (std::cmp_greater(value, Limits::max())) return Limits::max();
    return (To)value;
}

}  // namespace ptx
