// What each instruction does, by its name without rounding, flushing and saturation, which are flags.
//
// An entry says what operands it takes: results, "=", sources. p is a predicate and b, h, w, d are 8 to 64 bits; a capital
// may lie in a wider register; a is an address, l a label, v the registers of a vector or one half of pack and unpack.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "warp.h"

namespace ptx {

enum class Flow { ON, BRANCH, RETURN, BLOCK_BARRIER, WARP_BARRIER, TRAP };

struct Operands {
    char text[8];
};

struct Entry {
    void (*run)(Warp &, const Instruction &, Mask);
    Operands operands;
    int flags = 0;               // that the instruction may carry
    Flow flow = Flow::ON;
};

using Catalogue = std::map<std::string, Entry>;

// ---------------------------------------------------------------------------------------------------- types
template <class T> constexpr char width_of() { return sizeof(T) == 1 ? 'b' : sizeof(T) == 2 ? 'h' : sizeof(T) == 4 ? 'w' : 'd'; }
template <class T> constexpr char at_least() { return (char)(width_of<T>() - 'a' + 'A'); }

template <class T> struct Named {
    using type = T;
    const char *name;
};

template <class Use> void for_each_integer(Use use)
{
    use(Named<std::uint16_t>{"u16"});
    use(Named<std::uint32_t>{"u32"});
    use(Named<std::uint64_t>{"u64"});
    use(Named<std::int16_t>{"s16"});
    use(Named<std::int32_t>{"s32"});
    use(Named<std::int64_t>{"s64"});
}

template <class Use> void for_each_bits(Use use)
{
    use(Named<std::uint16_t>{"b16"});
    use(Named<std::uint32_t>{"b32"});
    use(Named<std::uint64_t>{"b64"});
}

template <class Use> void for_each_float(Use use)
{
    use(Named<float>{"f32"});
    use(Named<double>{"f64"});
}

template <class Use> void for_each_byte(Use use)
{
    use(Named<std::uint8_t>{"u8"});
    use(Named<std::int8_t>{"s8"});
}

// ---------------------------------------------------------------------------------------------------- lane by lane
inline int rounding_of(int flags)
{
    return flags & RZ ? FE_TOWARDZERO : flags & RM ? FE_DOWNWARD : flags & RP ? FE_UPWARD : FE_TONEAREST;
}

// Each of these makes the handler of an instruction from the operation on one lane's values.
template <class To, class A, auto operation> void unary(Warp &warp, const Instruction &at, Mask lanes)
{
    const Bits *a = warp.read(at.from[0], lanes);
    Bits *to = warp.write(at.to[0], lanes);
    const Rounding rounding(rounding_of(at.flags));
    const bool ftz = at.flags & FTZ;
    for_each_lane(lanes, [&](int lane) {
        const A value = value_of<A>(a[lane]);
        const To result = operation(ftz ? flush(value) : value);
        to[lane] = bits_of<To>(ftz ? flush(result) : result);
    });
}

template <class To, class A, class B, auto operation> void binary(Warp &warp, const Instruction &at, Mask lanes)
{
    const Bits *a = warp.read(at.from[0], lanes), *b = warp.read(at.from[1], lanes);
    Bits *to = warp.write(at.to[0], lanes);
    const Rounding rounding(rounding_of(at.flags));
    const bool ftz = at.flags & FTZ;
    for_each_lane(lanes, [&](int lane) {
        const A first = value_of<A>(a[lane]);
        const B second = value_of<B>(b[lane]);
        const To result = ftz ? flush(operation(flush(first), flush(second))) : operation(first, second);
        to[lane] = bits_of<To>(result);
    });
}

template <class To, class A, class C, auto operation> void ternary(Warp &warp, const Instruction &at, Mask lanes)
{
    const Bits *a = warp.read(at.from[0], lanes), *b = warp.read(at.from[1], lanes), *c = warp.read(at.from[2], lanes);
    Bits *to = warp.write(at.to[0], lanes);
    const Rounding rounding(rounding_of(at.flags));
    const bool ftz = at.flags & FTZ;
    for_each_lane(lanes, [&](int lane) {
        const A first = value_of<A>(a[lane]), second = value_of<A>(b[lane]);
        const C third = value_of<C>(c[lane]);
        const To result = ftz ? flush(operation(flush(first), flush(second), flush(third))) : operation(first, second, third);
        to[lane] = bits_of<To>(result);
    });
}

template <class T, class Operation> void add_unary(Catalogue &catalogue, const std::string &name, Operation, int flags = 0)
{
    catalogue[name] = {unary<T, T, Operation{}>, {width_of<T>(), '=', width_of<T>()}, flags};
}

template <class T, class Operation> void add_binary(Catalogue &catalogue, const std::string &name, Operation, int flags = 0)
{
    constexpr char w = width_of<T>();
    catalogue[name] = {binary<T, T, T, Operation{}>, {w, '=', w, w}, flags};
}

template <class T, class Operation> void add_ternary(Catalogue &catalogue, const std::string &name, Operation, int flags = 0)
{
    constexpr char w = width_of<T>();
    catalogue[name] = {ternary<T, T, T, Operation{}>, {w, '=', w, w, w}, flags};
}

// Wraps around as PTX does, where C++ leaves a signed overflow undefined and makes an int of a short.
template <class T> T wrapped(Bits value) { return (T)value; }

// ---------------------------------------------------------------------------------------------------- integers
inline void add_integers(Catalogue &catalogue)
{
    for_each_integer([&]<class T>(Named<T> type) {
        const std::string name = std::string(".") + type.name;
        add_binary<T>(catalogue, "add" + name, [](T a, T b) { return wrapped<T>(bits_of(a) + bits_of(b)); });
        add_binary<T>(catalogue, "sub" + name, [](T a, T b) { return wrapped<T>(bits_of(a) - bits_of(b)); });
        add_binary<T>(catalogue, "mul.lo" + name, [](T a, T b) { return wrapped<T>(bits_of(a) * bits_of(b)); });
        add_ternary<T>(catalogue, "mad.lo" + name, [](T a, T b, T c) { return wrapped<T>(bits_of(a) * bits_of(b) + bits_of(c)); });
        add_binary<T>(catalogue, "div" + name, [](T a, T b) {
            if (b == 0) throw Fault("it divides by zero");
            return std::is_signed_v<T> && b == (T)-1 ? wrapped<T>(-bits_of(a)) : (T)(a / b);
        });
        add_binary<T>(catalogue, "rem" + name, [](T a, T b) {
            if (b == 0) throw Fault("it divides by zero");
            return std::is_signed_v<T> && b == (T)-1 ? T(0) : (T)(a % b);
        });
        add_binary<T>(catalogue, "min" + name, [](T a, T b) { return lower(a, b); });
        add_binary<T>(catalogue, "max" + name, [](T a, T b) { return higher(a, b); });
        using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
        add_binary<T>(catalogue, "mul.hi" + name, [](T a, T b) { return (T)((Wide)a * (Wide)b >> 8 * sizeof(T)); });
        add_ternary<T>(catalogue, "mad.hi" + name, [](T a, T b, T c) {
            return wrapped<T>(bits_of((T)((Wide)a * (Wide)b >> 8 * sizeof(T))) + bits_of(c));
        });
        constexpr char w = width_of<T>(), wider = sizeof(T) == 2 ? 'w' : 'd';
        if constexpr (sizeof(T) < 8) {
            using To = std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, std::int32_t, std::uint32_t>,
                                          std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;
            constexpr auto mul = [](T a, T b) { return wrapped<To>(bits_of((To)a) * bits_of((To)b)); };
            constexpr auto mad = [](T a, T b, To c) { return wrapped<To>(bits_of((To)a) * bits_of((To)b) + bits_of(c)); };
            catalogue["mul.wide" + name] = {binary<To, T, T, mul>, {wider, '=', w, w}};
            catalogue["mad.wide" + name] = {ternary<To, T, To, mad>, {wider, '=', w, w, wider}};
        }
        constexpr auto shr = [](T a, std::uint32_t by) {
            if (by >= 8 * sizeof(T)) return std::is_signed_v<T> && a < 0 ? (T)-1 : T(0);
            return (T)(a >> by);
        };
        catalogue["shr" + name] = {binary<T, T, std::uint32_t, shr>, {w, '=', w, 'w'}};
        if constexpr (std::is_signed_v<T>) {
            add_unary<T>(catalogue, "neg" + name, [](T a) { return wrapped<T>(-bits_of(a)); });
            add_unary<T>(catalogue, "abs" + name, [](T a) { return a < 0 ? wrapped<T>(-bits_of(a)) : a; });
        }
    });
}

// ---------------------------------------------------------------------------------------------------- bits
template <class T> T shifted_left(T a, std::uint32_t by) { return by >= 8 * sizeof(T) ? T(0) : (T)(a << by); }

inline std::uint32_t permuted(std::uint32_t a, std::uint32_t b, std::uint32_t how)
{
    const Bits bytes = (Bits)b << 32 | a;
    std::uint32_t result = 0;
    for (int at = 0; at < 4; ++at) {
        const std::uint32_t pick = how >> 4 * at & 15;
        std::uint32_t byte = (std::uint32_t)(bytes >> 8 * (pick & 7)) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;          // the byte's sign, eight times
        result |= byte << 8 * at;
    }
    return result;
}

template <class T> T extracted(T a, std::uint32_t start, std::uint32_t count)
{
    constexpr std::uint32_t size = 8 * sizeof(T);
    start &= 255;
    count &= 255;
    if (!count) return 0;
    const std::uint32_t last = start + count - 1;
    const Bits shifted = start < 64 ? bits_of(a) >> start : 0;          // of a signed value: sign bits come in above
    const bool is_negative = std::is_signed_v<T> && (bits_of(a) >> (last < size ? last : size - 1) & 1);
    const std::uint32_t known = start >= size ? 0 : count < size - start ? count : size - start;
    const Bits low = known >= 64 ? ~Bits(0) : (Bits(1) << known) - 1;
    return (T)((shifted & low) | (is_negative ? ~low : 0));
}

template <class T> T inserted(T field, T into, std::uint32_t start, std::uint32_t count)
{
    constexpr std::uint32_t size = 8 * sizeof(T);
    start &= 255;
    count &= 255;
    for (std::uint32_t bit = 0; bit < count && start + bit < size; ++bit) {
        const T mask = T(1) << (start + bit);
        into = (T)((into & ~mask) | (field >> bit & 1 ? mask : 0));
    }
    return into;
}

inline void add_bits(Catalogue &catalogue)
{
    const auto logic = [&]<class T>(Named<T> type) {
        const std::string name = std::string(".") + type.name;
        constexpr char w = width_of<T>();
        add_binary<T>(catalogue, "and" + name, [](T a, T b) { return (T)(a & b); });
        add_binary<T>(catalogue, "or" + name, [](T a, T b) { return (T)(a | b); });
        add_binary<T>(catalogue, "xor" + name, [](T a, T b) { return (T)(a ^ b); });
        add_unary<T>(catalogue, "not" + name, [](T a) { return (T)~a; });
        catalogue["shl" + name] = {binary<T, T, std::uint32_t, shifted_left<T>>, {w, '=', w, 'w'}};
        constexpr auto shr = [](T a, std::uint32_t by) { return by >= 8 * sizeof(T) ? T(0) : (T)(a >> by); };
        catalogue["shr" + name] = {binary<T, T, std::uint32_t, shr>, {w, '=', w, 'w'}};
        if constexpr (sizeof(T) >= 4) {
            constexpr auto clz = [](T a) { return (std::uint32_t)std::countl_zero(a); };
            constexpr auto popc = [](T a) { return (std::uint32_t)std::popcount(a); };
            constexpr auto brev = [](T a) {
                T result = 0;
                for (int bit = 0; bit < (int)(8 * sizeof(T)); ++bit) result = (T)(result << 1 | (a >> bit & 1));
                return result;
            };
            catalogue["clz" + name] = {unary<std::uint32_t, T, clz>, {'w', '=', w}};
            catalogue["popc" + name] = {unary<std::uint32_t, T, popc>, {'w', '=', w}};
            catalogue["brev" + name] = {unary<T, T, brev>, {w, '=', w}};
            catalogue["bfi" + name] = {[](Warp &warp, const Instruction &at, Mask lanes) {
                const Bits *field = warp.read(at.from[0], lanes), *into = warp.read(at.from[1], lanes);
                const Bits *start = warp.read(at.from[2], lanes), *count = warp.read(at.from[3], lanes);
                Bits *to = warp.write(at.to[0], lanes);
                for_each_lane(lanes, [&](int lane) {
                    to[lane] = inserted<T>((T)field[lane], (T)into[lane], (std::uint32_t)start[lane], (std::uint32_t)count[lane]);
                });
            }, {w, '=', w, w, 'w', 'w'}};
        }
    };
    for_each_bits(logic);
    const auto predicate = [&](const char *name, auto operation) {
        constexpr decltype(operation) run{};
        catalogue[name] = {binary<std::uint8_t, std::uint8_t, std::uint8_t, run>, "p=pp"};
    };
    predicate("and.pred", [](std::uint8_t a, std::uint8_t b) { return (std::uint8_t)(a & b); });
    predicate("or.pred", [](std::uint8_t a, std::uint8_t b) { return (std::uint8_t)(a | b); });
    predicate("xor.pred", [](std::uint8_t a, std::uint8_t b) { return (std::uint8_t)(a ^ b); });
    catalogue["not.pred"] = {unary<std::uint8_t, std::uint8_t, [](std::uint8_t a) { return (std::uint8_t)!a; }>, "p=p"};

    using U = std::uint32_t;
    catalogue["prmt.b32"] = {ternary<U, U, U, permuted>, "w=www"};
    catalogue["dp2a.lo.u32.u32"] = {ternary<U, U, U, [](U a, U b, U sum) {
        return sum + (a & 0xffff) * (b & 255) + (a >> 16) * (b >> 8 & 255);
    }>, "w=www"};
    catalogue["shf.l.wrap.b32"] = {ternary<U, U, U, [](U low, U high, U by) {
        return (U)(((Bits)high << 32 | low) << (by & 31) >> 32);
    }>, "w=www"};
    catalogue["shf.r.wrap.b32"] = {ternary<U, U, U, [](U low, U high, U by) {
        return (U)(((Bits)high << 32 | low) >> (by & 31));
    }>, "w=www"};
    catalogue["shf.l.clamp.b32"] = {ternary<U, U, U, [](U low, U high, U by) {
        return (U)(((Bits)high << 32 | low) << (by < 32 ? by : 32) >> 32);
    }>, "w=www"};
    catalogue["shf.r.clamp.b32"] = {ternary<U, U, U, [](U low, U high, U by) {
        return (U)(((Bits)high << 32 | low) >> (by < 32 ? by : 32));
    }>, "w=www"};
    catalogue["lop3.b32"] = {[](Warp &warp, const Instruction &at, Mask lanes) {
        const Bits *a = warp.read(at.from[0], lanes), *b = warp.read(at.from[1], lanes), *c = warp.read(at.from[2], lanes);
        const Bits *table = warp.read(at.from[3], lanes);
        Bits *to = warp.write(at.to[0], lanes);
        for_each_lane(lanes, [&](int lane) {
            Bits result = 0;
            for (int bit = 0; bit < 32; ++bit) {
                const int row = (int)(a[lane] >> bit & 1) << 2 | (int)(b[lane] >> bit & 1) << 1 | (int)(c[lane] >> bit & 1);
                result |= (table[lane] >> row & 1) << bit;
            }
            to[lane] = result;
        });
    }, "w=wwww"};
    const auto field = [&]<class T>(Named<T> type) {
        if constexpr (sizeof(T) >= 4) {
            constexpr char w = width_of<T>();
            catalogue[std::string("bfe.") + type.name] = {[](Warp &warp, const Instruction &at, Mask lanes) {
                const Bits *a = warp.read(at.from[0], lanes), *start = warp.read(at.from[1], lanes);
                const Bits *count = warp.read(at.from[2], lanes);
                Bits *to = warp.write(at.to[0], lanes);
                for_each_lane(lanes, [&](int lane) {
                    to[lane] = bits_of(extracted(value_of<T>(a[lane]), (std::uint32_t)start[lane], (std::uint32_t)count[lane]));
                });
            }, {w, '=', w, 'w', 'w'}};
        }
    };
    for_each_integer(field);
}

// ---------------------------------------------------------------------------------------------------- floats
inline void add_floats(Catalogue &catalogue)
{
    for_each_float([&]<class T>(Named<T> type) {
        const std::string name = std::string(".") + type.name;
        const int ftz = sizeof(T) == 4 ? FTZ : 0, rounds = RN | RZ | RM | RP | ftz;
        add_binary<T>(catalogue, "add" + name, [](T a, T b) { return canonical(a + b); }, rounds);
        add_binary<T>(catalogue, "sub" + name, [](T a, T b) { return canonical(a - b); }, rounds);
        add_binary<T>(catalogue, "mul" + name, [](T a, T b) { return canonical(a * b); }, rounds);
        add_binary<T>(catalogue, "div" + name, [](T a, T b) { return canonical(a / b); }, rounds);
        add_ternary<T>(catalogue, "fma" + name, [](T a, T b, T c) { return canonical(std::fma(a, b, c)); }, rounds);
        add_unary<T>(catalogue, "sqrt" + name, [](T a) { return canonical(std::sqrt(a)); }, rounds);
        add_unary<T>(catalogue, "rcp" + name, [](T a) { return canonical(T(1) / a); }, rounds);
        add_unary<T>(catalogue, "neg" + name, [](T a) { return canonical(-a); }, ftz);
        add_unary<T>(catalogue, "abs" + name, [](T a) { return canonical(std::fabs(a)); }, ftz);
        add_binary<T>(catalogue, "min" + name, [](T a, T b) { return lower(a, b); }, ftz);
        add_binary<T>(catalogue, "max" + name, [](T a, T b) { return higher(a, b); }, ftz);
    });
}

// ---------------------------------------------------------------------------------------------------- comparisons
struct Comparison {
    const char *name;
    bool below, same, above, unordered;      // what it says yes to
};

inline constexpr Comparison COMPARISONS[] = {
    {"eq", false, true, false, false}, {"ne", true, false, true, false}, {"lt", true, false, false, false},
    {"le", true, true, false, false}, {"gt", false, false, true, false}, {"ge", false, true, true, false},
    {"equ", false, true, false, true}, {"neu", true, false, true, true}, {"ltu", true, false, false, true},
    {"leu", true, true, false, true}, {"gtu", false, false, true, true}, {"geu", false, true, true, true},
    {"num", true, true, true, false}, {"nan", false, false, false, true},
};

enum class Join { NONE, AND, OR, XOR };

inline Join join_of(int flags) { return flags & AND ? Join::AND : flags & OR ? Join::OR : flags & XOR ? Join::XOR : Join::NONE; }

template <class T, int which> void compare(Warp &warp, const Instruction &at, Mask lanes)
{
    constexpr Comparison how = COMPARISONS[which];
    const Join join = join_of(at.flags);
    const Bits *a = warp.read(at.from[0], lanes), *b = warp.read(at.from[1], lanes);
    const Bits *other = join == Join::NONE ? nullptr : warp.read(at.from[2], lanes);
    Bits *to = warp.write(at.to[0], lanes), *complement = at.to[1] < 0 ? nullptr : warp.write(at.to[1], lanes);
    for_each_lane(lanes, [&](int lane) {
        T first = value_of<T>(a[lane]), second = value_of<T>(b[lane]);
        if (at.flags & FTZ) first = flush(first), second = flush(second);
        const bool answer = first < second ? how.below : first == second ? how.same : second < first ? how.above : how.unordered;
        const bool third = other && (bool)other[lane] != (bool)(at.flags & NEGATED);
        const auto joined = [&](bool one) {
            return join == Join::AND ? one && third : join == Join::OR ? one || third : join == Join::XOR ? one != third : one;
        };
        to[lane] = joined(answer);
        if (complement) complement[lane] = joined(!answer);
    });
}

template <class T, int which> void add_comparison(Catalogue &catalogue, const std::string &name, const char *spelled = nullptr)
{
    const std::string base = std::string("setp.") + (spelled ? spelled : COMPARISONS[which].name);
    constexpr char w = width_of<T>();
    const int flags = AND | OR | XOR | NEGATED | (std::is_same_v<T, float> ? FTZ : 0);
    catalogue[base + name] = {compare<T, which>, {'p', '=', w, w}, flags};
}

template <class T, int... which> void add_comparisons(Catalogue &catalogue, const std::string &name, std::integer_sequence<int, which...>)
{
    (add_comparison<T, which>(catalogue, name), ...);
}

inline void add_selections(Catalogue &catalogue)
{
    const auto select = [&]<class T>(Named<T> type) {
        constexpr char w = width_of<T>();
        catalogue[std::string("selp.") + type.name] = {[](Warp &warp, const Instruction &at, Mask lanes) {
            const Bits *a = warp.peek(at.from[0]), *b = warp.peek(at.from[1]), *which = warp.read(at.from[2], lanes);
            const Mask known_a = warp.known(at.from[0]), known_b = warp.known(at.from[1]);
            Bits *to = warp.write(at.to[0], lanes);
            for_each_lane(lanes, [&](int lane) {
                const bool first = which[lane];
                to[lane] = bits_of(value_of<T>(first ? a[lane] : b[lane]));
                if (!((first ? known_a : known_b) >> lane & 1)) warp.forget(at.to[0], Mask(1) << lane);
            });
        }, {w, '=', w, w, 'p'}};
    };
    for_each_integer(select);
    for_each_bits(select);
    for_each_float(select);
    for_each_integer([&]<class T>(Named<T> type) {
        const std::string name = std::string(".") + type.name;
        add_comparisons<T>(catalogue, name, std::make_integer_sequence<int, 6>{});
        if constexpr (std::is_unsigned_v<T>) {               // lower, lower or same, higher, higher or same
            add_comparison<T, 2>(catalogue, name, "lo");
            add_comparison<T, 3>(catalogue, name, "ls");
            add_comparison<T, 4>(catalogue, name, "hi");
            add_comparison<T, 5>(catalogue, name, "hs");
        }
    });
    for_each_bits([&]<class T>(Named<T> type) {
        add_comparisons<T>(catalogue, std::string(".") + type.name, std::make_integer_sequence<int, 2>{});
    });
    for_each_float([&]<class T>(Named<T> type) {
        add_comparisons<T>(catalogue, std::string(".") + type.name, std::make_integer_sequence<int, 14>{});
    });
}

// ---------------------------------------------------------------------------------------------------- conversions
template <class T> T to_whole(T value, int flags)
{
    return flags & RZI ? std::trunc(value) : flags & RMI ? std::floor(value) : flags & RPI ? std::ceil(value) : std::nearbyint(value);
}

template <class To, class From> To converted(From value, int flags)
{
    if constexpr (std::is_same_v<From, Half>) {
        return converted<To>(from_half(value), flags);
    } else if constexpr (is_floating<From>) {
        if (flags & FTZ) value = flush(value);
        if (flags & (RNI | RZI | RMI | RPI)) value = to_whole(value, flags);
        if constexpr (std::is_integral_v<To>) {
            return saturated<To>(value);
        } else {
            if (flags & SAT) value = std::isnan(value) ? From(0) : lower(higher(value, From(0)), From(1));
            if constexpr (std::is_same_v<To, Half>) return to_half((double)value);
            else return flags & FTZ ? flush(canonical((To)value)) : canonical((To)value);
        }
    } else if constexpr (std::is_integral_v<To>) {
        return flags & SAT ? clamped<To>(value) : (To)value;
    } else {
        const To number = (To)value;
        return flags & SAT ? lower(higher(number, To(0)), To(1)) : number;
    }
}

template <class To, class From> void convert(Warp &warp, const Instruction &at, Mask lanes)
{
    const Bits *from = warp.read(at.from[0], lanes);
    Bits *to = warp.write(at.to[0], lanes);
    const Rounding rounding(rounding_of(at.flags));
    for_each_lane(lanes, [&](int lane) { to[lane] = bits_of(converted<To>(value_of<From>(from[lane]), at.flags)); });
}

inline void add_conversions(Catalogue &catalogue)
{
    const auto for_each_type = [](auto use) {
        for_each_byte(use);
        for_each_integer(use);
        for_each_float(use);
        use(Named<Half>{"f16"});
    };
    for_each_type([&]<class To>(Named<To> to) {
        for_each_type([&]<class From>(Named<From> from) {
            constexpr bool halves = std::is_same_v<To, Half> || std::is_same_v<From, Half>;
            if constexpr (halves && !(is_floating<To> && is_floating<From> && !std::is_same_v<To, From>)) return;
            else {
                int flags = 0;
                if (is_floating<From>) flags |= sizeof(From) == 4 || sizeof(To) == 4 ? FTZ : 0;
                if (is_floating<From> && std::is_integral_v<To>) flags |= RNI | RZI | RMI | RPI;
                if (std::is_same_v<From, To> && is_floating<To>) flags |= RNI | RZI | RMI | RPI;
                if (std::is_same_v<To, Half>) flags |= RN;
                else if (is_floating<To> && !std::is_same_v<From, Half>) flags |= RN | RZ | RM | RP;
                if (!halves) flags |= SAT;
                catalogue[std::string("cvt.") + to.name + "." + from.name] = {
                    convert<To, From>, {at_least<To>(), '=', at_least<From>()}, flags};
            }
        });
    });
}

}  // namespace ptx
