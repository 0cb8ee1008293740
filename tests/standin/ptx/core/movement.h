// Instructions that move values: between registers, to and from memory, between the lanes of a warp.
#pragma once

#include "instructions.h"

namespace ptx {

// What has no value may be moved: compilers do that on the way to where it is not used.
inline void copy(Warp &warp, const Instruction &at, Mask lanes)
{
    const Bits *from = warp.peek(at.from[0]);
    const Mask unknown = lanes & ~warp.known(at.from[0]);
    Bits *to = warp.write(at.to[0], lanes);
    for_each_lane(lanes, [&](int lane) { to[lane] = from[lane]; });
    warp.forget(at.to[0], unknown);
}

// Where the parts of a vector go; null for a part that PTX calls _.
class Targets {
public:
    Targets(Warp &warp, const Instruction &at, Mask lanes)
    {
        for (int k = 0; k < at.vector; ++k) to[k] = at.to[k] < 0 ? nullptr : warp.write(at.to[k], lanes);
    }

    Bits *operator[](int k) const { return to[k]; }

private:
    Bits *to[MAX_TO];
};

template <int width> void pack(Warp &warp, const Instruction &at, Mask lanes)
{
    const int part = width / at.vector;
    const Bits *from[MAX_FROM];
    for (int k = 0; k < at.vector; ++k) from[k] = warp.read(at.from[k], lanes);
    Bits *to = warp.write(at.to[0], lanes);
    for_each_lane(lanes, [&](int lane) {
        Bits whole = 0;
        for (int k = 0; k < at.vector; ++k) whole |= (from[k][lane] & ((Bits(1) << part) - 1)) << part * k;
        to[lane] = whole;
    });
}

template <int width> void unpack(Warp &warp, const Instruction &at, Mask lanes)
{
    const int part = width / at.vector;
    const Bits *from = warp.read(at.from[0], lanes);
    const Targets to(warp, at, lanes);
    for_each_lane(lanes, [&](int lane) {
        const Bits whole = from[lane];       // a part may go to the register that it comes from
        for (int k = 0; k < at.vector; ++k) {
            if (to[k]) to[k][lane] = whole >> part * k & ((Bits(1) << part) - 1);
        }
    });
}

// ---------------------------------------------------------------------------------------------------- memory
enum class Space { PARAM, SHARED, LOCAL, GLOBAL, GENERIC };

// The address of one lane's access, checked in all ways but for what lies there.
class Addresses {
public:
    Addresses(Warp &warp, const Instruction &at, int operand, unsigned width, Mask lanes)
        : base(warp.read(operand, lanes)), offset(at.offset), is_short(at.address_bits == 32), width(width) {}

    std::uint64_t of(int lane) const
    {
        // An address of 32 bits wraps: compilers count up to the end of an array from below its beginning.
        const std::uint64_t sum = base[lane] + (std::uint64_t)offset, address = is_short ? (std::uint32_t)sum : sum;
        if (address % width) throw Fault("address " + std::to_string(address) + " is no multiple of " + std::to_string(width), lane);
        return address;
    }

private:
    const Bits *const base;
    const std::int64_t offset;
    const bool is_short;
    const unsigned width;
};

template <Space space>
unsigned char *locate(Warp &warp, const Instruction &at, std::uint64_t address, unsigned width, Access how, int lane)
{
    if constexpr (space == Space::PARAM) return warp.parameters + address;
    try {
        const Moment now = warp.moment(lane);
        if (space == Space::SHARED || (space == Space::GENERIC && address >= SHARED_WINDOW && address < LOCAL_WINDOW)) {
            return warp.shared.access(address - (space == Space::SHARED ? 0 : SHARED_WINDOW), width, at.used_bytes, how, now, warp.sight);
        }
        if (space == Space::LOCAL || (space == Space::GENERIC && address >= LOCAL_WINDOW)) {
            return warp.local.access(address - (space == Space::LOCAL ? 0 : LOCAL_WINDOW), width, how, lane);
        }
        return warp.global.access(address, width, at.used_bytes, how, at.flags & CONSTANT, now, warp.sight);
    } catch (const Fault &fault) {
        throw Fault(fault.what(), lane);
    }
}

template <class T, Space space> void load(Warp &warp, const Instruction &at, Mask lanes)
{
    const unsigned width = sizeof(T) * (unsigned)at.vector;
    const Addresses addresses(warp, at, at.from[0], width, lanes);
    const Targets to(warp, at, lanes);       // one may be the register of the address: each lane reads it first
    for_each_lane(lanes, [&](int lane) {
        const unsigned char *bytes = locate<space>(warp, at, addresses.of(lane), width, Access::READ, lane);
        for (int k = 0; k < at.vector; ++k) {
            T value;
            std::memcpy(&value, bytes + k * (int)sizeof(T), sizeof(T));
            if (!to[k]) continue;
            to[k][lane] = bits_of(value);
            const unsigned char *part = bytes + k * (int)sizeof(T);
            const bool is_known = space == Space::PARAM || space == Space::GLOBAL
                                  || (warp.shared.is_written(part, sizeof(T)) && warp.local.is_written(part, sizeof(T)));
            if (!is_known) warp.forget(at.to[k], Mask(1) << lane);
        }
    });
}

template <class T, Space space> void store(Warp &warp, const Instruction &at, Mask lanes)
{
    const unsigned width = sizeof(T) * (unsigned)at.vector;
    const Addresses addresses(warp, at, at.from[0], width, lanes);
    const Bits *from[MAX_TO];
    for (int k = 0; k < at.vector; ++k) from[k] = warp.read(at.from[k + 1], lanes);
    for_each_lane(lanes, [&](int lane) {
        unsigned char *bytes = locate<space>(warp, at, addresses.of(lane), width, Access::WRITE, lane);
        for (int k = 0; k < at.vector; ++k) {
            const T value = value_of<T>(from[k][lane]);
            std::memcpy(bytes + k * (int)sizeof(T), &value, sizeof(T));
        }
    });
}

// An atomic sum. What was there before depends on the order: in shared memory, where nothing asks for it, that register has
// no value; in global memory it is a thread's place among others.
template <class T, Space space> void add_to(Warp &warp, const Instruction &at, Mask lanes)
{
    const Addresses addresses(warp, at, at.from[0], sizeof(T), lanes);
    const Bits *values = warp.read(at.from[1], lanes);
    Bits *to = at.to[0] < 0 ? nullptr : warp.write(at.to[0], lanes);
    for_each_lane(lanes, [&](int lane) {     // the result may go to a register that it is made of
        const std::uint64_t address = addresses.of(lane);
        unsigned char *bytes = locate<space>(warp, at, address, sizeof(T), Access::ADD, lane);
        T before;
        std::memcpy(&before, bytes, sizeof(T));
        const T sum = before + value_of<T>(values[lane]);
        std::memcpy(bytes, &sum, sizeof(T));
        if (space == Space::GLOBAL) warp.sight.add_to(warp.global.left_at(address), warp.moment(lane));
        if (to) to[lane] = bits_of(before);
    });
    if (to && space == Space::SHARED) warp.forget(at.to[0], lanes);
}

inline void fence(Warp &warp, const Instruction &, Mask lanes)
{
    for_each_lane(lanes, [&](int lane) { warp.sight.pass_fence(warp.moment(lane)); });
}

template <class T> void add_access(Catalogue &catalogue, const std::string &name)
{
    const Operands loaded = {at_least<T>(), '=', 'a'}, stored = {'=', 'a', at_least<T>()};
    catalogue["ld.param" + name] = {load<T, Space::PARAM>, loaded};
    catalogue["ld.shared" + name] = {load<T, Space::SHARED>, loaded};
    catalogue["ld.global" + name] = {load<T, Space::GLOBAL>, loaded, CONSTANT};
    catalogue["ld.const" + name] = {load<T, Space::GLOBAL>, loaded};
    catalogue["ld.local" + name] = {load<T, Space::LOCAL>, loaded};
    catalogue["st.local" + name] = {store<T, Space::LOCAL>, stored};
    catalogue["ld.generic" + name] = {load<T, Space::GENERIC>, loaded};
    catalogue["st.shared" + name] = {store<T, Space::SHARED>, stored};
    catalogue["st.global" + name] = {store<T, Space::GLOBAL>, stored};
    catalogue["st.generic" + name] = {store<T, Space::GENERIC>, stored};
}

inline void add_movement(Catalogue &catalogue)
{
    const auto move = [&]<class T>(Named<T> type) {
        constexpr char w = width_of<T>();
        catalogue[std::string("mov.") + type.name] = {copy, {w, '=', w}};
        add_access<T>(catalogue, std::string(".") + type.name);
    };
    for_each_integer(move);
    for_each_bits(move);
    for_each_float(move);
    catalogue["mov.pred"] = {copy, "p=p"};
    for_each_byte([&]<class T>(Named<T> type) { add_access<T>(catalogue, std::string(".") + type.name); });
    add_access<std::uint8_t>(catalogue, ".b8");
    catalogue["atom.shared.add.u32"] = {add_to<std::uint32_t, Space::SHARED>, "w=aw"};
    catalogue["red.shared.add.u32"] = {add_to<std::uint32_t, Space::SHARED>, "=aw"};
    catalogue["atom.global.add.u32"] = {add_to<std::uint32_t, Space::GLOBAL>, "w=aw"};
    catalogue["red.global.add.u32"] = {add_to<std::uint32_t, Space::GLOBAL>, "=aw"};
    catalogue["membar.gl"] = {fence, "="};
    catalogue["pack.b32"] = {pack<32>, "w=v"};
    catalogue["pack.b64"] = {pack<64>, "d=v"};
    catalogue["unpack.b32"] = {unpack<32>, "v=w"};
    catalogue["unpack.b64"] = {unpack<64>, "v=d"};
    for (const char *name : {"cvta.global.u64", "cvta.to.global.u64", "cvta.const.u64", "cvta.to.const.u64"}) {
        catalogue[name] = {copy, "d=d"};     // a generic address is the address
    }
    catalogue["cvta.local.u64"] = {unary<Bits, Bits, [](Bits a) { return a + LOCAL_WINDOW; }>, "d=d"};
    catalogue["cvta.to.local.u64"] = {unary<Bits, Bits, [](Bits a) { return a - LOCAL_WINDOW; }>, "d=d"};
    catalogue["cvta.shared.u64"] = {unary<Bits, Bits, [](Bits a) { return a + SHARED_WINDOW; }>, "d=d"};
    catalogue["cvta.to.shared.u64"] = {unary<Bits, Bits, [](Bits a) { return a - SHARED_WINDOW; }>, "d=d"};
}

// ---------------------------------------------------------------------------------------------------- lanes together
enum class Shuffle { UP, DOWN, BFLY, IDX };

template <Shuffle how> void shuffle(Warp &warp, const Instruction &at, Mask lanes)
{
    const Bits *a = warp.read(at.from[0], lanes), *b = warp.read(at.from[1], lanes), *c = warp.read(at.from[2], lanes);
    Bits before[LANES];
    for_each_lane(lanes, [&](int lane) { before[lane] = a[lane]; });
    Bits *to = warp.write(at.to[0], lanes), *is_valid = at.to[1] < 0 ? nullptr : warp.write(at.to[1], lanes);
    for_each_lane(lanes, [&](int lane) {
        const int by = (int)(b[lane] & 31), clamp = (int)(c[lane] & 31), segment = (int)(c[lane] >> 8 & 31);
        const int last = (lane & segment) | (clamp & ~segment), first = lane & segment;
        int source = lane;
        bool valid = true;
        if constexpr (how == Shuffle::UP) source = lane - by, valid = source >= last;
        if constexpr (how == Shuffle::DOWN) source = lane + by, valid = source <= last;
        if constexpr (how == Shuffle::BFLY) source = lane ^ by, valid = source <= last;
        if constexpr (how == Shuffle::IDX) source = first | (by & ~segment), valid = source <= last;
        if (!valid) source = lane;
        if (!(lanes >> source & 1)) throw Fault("it takes a value from lane " + std::to_string(source) + ", which is not there", lane);
        to[lane] = before[source];
        if (is_valid) is_valid[lane] = valid;
    });
}

enum class Vote { ALL, ANY, UNI, BALLOT };

template <Vote how> void vote(Warp &warp, const Instruction &at, Mask lanes)
{
    const Bits *from = warp.read(at.from[0], lanes);
    Mask yes = 0;
    for_each_lane(lanes, [&](int lane) { yes |= (Mask)((bool)from[lane] != (bool)(at.flags & NEGATED)) << lane; });
    const Bits answer = how == Vote::ALL ? yes == lanes : how == Vote::ANY ? yes != 0 : how == Vote::UNI ? !yes || yes == lanes : yes;
    Bits *to = warp.write(at.to[0], lanes);
    for_each_lane(lanes, [&](int lane) { to[lane] = answer; });
}

inline void add_collectives(Catalogue &catalogue)
{
    // The last source is the mask of the lanes that take part.
    catalogue["shfl.sync.up.b32"] = {shuffle<Shuffle::UP>, "w=wwww", 0, Flow::WARP_BARRIER};
    catalogue["shfl.sync.down.b32"] = {shuffle<Shuffle::DOWN>, "w=wwww", 0, Flow::WARP_BARRIER};
    catalogue["shfl.sync.bfly.b32"] = {shuffle<Shuffle::BFLY>, "w=wwww", 0, Flow::WARP_BARRIER};
    catalogue["shfl.sync.idx.b32"] = {shuffle<Shuffle::IDX>, "w=wwww", 0, Flow::WARP_BARRIER};
    catalogue["vote.sync.all.pred"] = {vote<Vote::ALL>, "p=pw", NEGATED, Flow::WARP_BARRIER};
    catalogue["vote.sync.any.pred"] = {vote<Vote::ANY>, "p=pw", NEGATED, Flow::WARP_BARRIER};
    catalogue["vote.sync.uni.pred"] = {vote<Vote::UNI>, "p=pw", NEGATED, Flow::WARP_BARRIER};
    catalogue["vote.sync.ballot.b32"] = {vote<Vote::BALLOT>, "w=pw", NEGATED, Flow::WARP_BARRIER};
    catalogue["bar.warp.sync"] = {nullptr, "=w", 0, Flow::WARP_BARRIER};
    catalogue["bar.sync"] = {nullptr, "=w", 0, Flow::BLOCK_BARRIER};
    catalogue["barrier.sync"] = {nullptr, "=w", 0, Flow::BLOCK_BARRIER};
    catalogue["bra"] = {nullptr, "=l", 0, Flow::BRANCH};
    catalogue["ret"] = {nullptr, "=", 0, Flow::RETURN};
    catalogue["exit"] = {nullptr, "=", 0, Flow::RETURN};
    catalogue["trap"] = {nullptr, "=", 0, Flow::TRAP};
}

inline const Catalogue &catalogue()
{
    static const Catalogue made = [] {
        Catalogue all;
        add_integers(all);
        add_bits(all);
        add_floats(all);
        add_selections(all);
        add_conversions(all);
        add_movement(all);
        add_collectives(all);
        return all;
    }();
    return made;
}

}  // namespace ptx
