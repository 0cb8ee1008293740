// The state that an instruction works on: one warp, its lanes' registers, and the memories it can reach.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.h"
#include "values.h"

namespace ptx {

constexpr int LANES = 32;
using Mask = std::uint32_t;      // a bit per lane

constexpr int MAX_TO = 4, MAX_FROM = 5;

struct Instruction {             // as tests/standin/ptx/encode.py packs it
    std::int32_t entry;          // in the catalogue
    std::int32_t flags;          // of Flag
    std::int32_t guard;          // register of the predicate, or -1
    std::int32_t guard_negated;
    std::int32_t target;         // of a branch
    std::int32_t vector;         // values that ld, st, pack and unpack move
    std::uint32_t used_bytes;    // of all of them together
    std::int32_t address_bits;   // 32 or 64: the width of the register that holds the address
    std::int64_t offset;         // added to it
    std::int32_t to[MAX_TO];     // registers, or -1
    std::int32_t from[MAX_FROM]; // registers; -2 - k: constant k; -1: none
    std::int32_t reserved;
};

enum Flag {
    RN = 1, RZ = 2, RM = 4, RP = 8,          // rounding of a float
    RNI = 16, RZI = 32, RMI = 64, RPI = 128, // rounding to a whole number
    FTZ = 256, SAT = 512,
    NEGATED = 1024,              // the predicate that comes last counts the other way
    CONSTANT = 2048,             // ld.global.nc
    AND = 4096, OR = 8192, XOR = 16384,      // of a comparison, with a predicate that comes last
};

enum Special { TID_X, TID_Y, TID_Z, NTID_X, NTID_Y, NTID_Z, CTAID_X, CTAID_Y, CTAID_Z, NCTAID_X, NCTAID_Y, NCTAID_Z,
               LANEID, WARPID, NUM_SPECIAL };    // the first registers, in this order

template <class Use> void for_each_lane(Mask lanes, Use use)
{
    if (lanes == ~Mask(0)) {
        for (int lane = 0; lane < LANES; ++lane) use(lane);
    } else {
        for (; lanes; lanes &= lanes - 1) use(std::countr_zero(lanes));
    }
}

struct Program {
    std::vector<Instruction> code;
    std::vector<Bits> constants; // each LANES times
    int num_registers;
    int local_bytes;             // of each thread
};

// Registers of warps that are at their end, for the next ones: hundreds of kilobytes each, which nobody needs cleared.
class Storage {
public:
    explicit Storage(std::size_t size)
    {
        if (!spare().empty()) {
            bits = std::move(spare().back());
            spare().pop_back();
        }
        if (bits.size() < size) bits.resize(size);
    }

    ~Storage() { if (!bits.empty()) spare().push_back(std::move(bits)); }
    Storage(Storage &&) = default;

    Bits *at(std::size_t position) { return &bits[position]; }
    const Bits *at(std::size_t position) const { return &bits[position]; }

private:
    static std::vector<std::vector<Bits>> &spare()
    {
        thread_local std::vector<std::vector<Bits>> kept;
        return kept;
    }

    std::vector<Bits> bits;
};

class Warp {
public:
    Warp(const Program &program, unsigned char *parameters, GlobalMemory &global, SharedMemory &shared, Sight &sight, Moment first,
         int num_lanes)
        : parameters(parameters), global(global), shared(shared), sight(sight), local((std::size_t)program.local_bytes, num_lanes), exists(num_lanes == LANES ? ~Mask(0) : (Mask(1) << num_lanes) - 1),
          registers((std::size_t)program.num_registers * LANES), defined((std::size_t)program.num_registers),
          constants(program.constants.data()), first(first)
    {
    }

    // The lanes of an operand. What has no value is not computed with.
    const Bits *read(int operand, Mask lanes) const
    {
        if (const Mask unknown = lanes & ~known(operand)) {
            throw Fault("it reads a register that nothing wrote, or that was loaded from what nobody wrote", std::countr_zero(unknown));
        }
        return peek(operand);
    }

    const Bits *peek(int operand) const
    {
        return operand < 0 ? constants + (-2 - operand) * LANES : registers.at((std::size_t)operand * LANES);
    }

    // The lanes in which an operand has a value.
    Mask known(int operand) const { return operand < 0 ? ~Mask(0) : defined[(std::size_t)operand]; }

    void forget(int target, Mask lanes) { defined[(std::size_t)target] &= ~lanes; }

    Bits *write(int target, Mask lanes)
    {
        defined[(std::size_t)target] |= lanes;
        return registers.at((std::size_t)target * LANES);
    }

    Moment moment(int lane) const
    {
        Moment now = first;
        now.thread += (std::uint32_t)lane;
        return now;
    }

    void pass_block_barrier() { ++first.epoch; }
    void pass_warp_barrier() { ++first.warp_epoch; }

    unsigned char *const parameters;
    GlobalMemory &global;
    SharedMemory &shared;
    Sight &sight;
    LocalMemory local;

    int pc[LANES] = {};
    const Mask exists;
    Mask done = 0, at_barrier = 0, at_sync = 0;

    Mask running() const { return exists & ~(done | at_barrier | at_sync); }

private:
    Storage registers;           // by register, then by lane
    std::vector<Mask> defined;
    const Bits *const constants;
    Moment first;                // of lane 0
};

}  // namespace ptx
