// Runs a grid: which threads go on next, what a barrier waits for, and what a fault says. The C functions at the end are
// called by tests/standin/ptx/machine.py.
//
// Each thread has its own program counter, as since Volta. In lockstep the threads of a warp that have come least far go
// first, so that they meet again after a branch, and one warp runs until it waits; at random, any threads of any warp of
// several blocks go on for any number of instructions. What a correct kernel computes is the same.

#include <climits>
#include <cstdio>
#include <memory>
#include <random>

#include "movement.h"

namespace ptx {

struct Settings {                // as tests/standin/ptx/machine.py packs it
    std::int32_t grid[3];
    std::int32_t block;
    std::int32_t shared_bytes;
    std::int32_t is_random;
    std::int32_t watches_races;
    std::int32_t num_resident;   // blocks at work at once
    std::uint64_t seed;
    std::uint64_t max_steps;     // instructions of warps, after which the launch counts as endless
};

struct Report {
    std::int32_t instruction, block, thread;
    std::uint64_t steps, thread_steps;
    char message[240];
};

struct Stop : std::runtime_error {           // a fault, with its place
    Stop(const Fault &fault, int instruction, std::uint32_t block, std::int64_t thread)
        : std::runtime_error(fault.what()), instruction(instruction), block(block), thread(thread) {}
    int instruction;
    std::uint32_t block;
    std::int64_t thread;         // of the block; -1: no one thread
};

class Block {
public:
    Block(const Program &program, const Settings &settings, unsigned char *parameters, GlobalMemory &global, std::uint32_t number)
        : number(number), shared((std::size_t)settings.shared_bytes, settings.watches_races)
    {
        const int num_warps = (settings.block + LANES - 1) / LANES;
        const std::uint32_t x = number % (std::uint32_t)settings.grid[0];
        const std::uint32_t y = number / (std::uint32_t)settings.grid[0] % (std::uint32_t)settings.grid[1];
        const std::uint32_t z = number / (std::uint32_t)settings.grid[0] / (std::uint32_t)settings.grid[1];
        warps.reserve((std::size_t)num_warps);
        for (int at = 0; at < num_warps; ++at) {
            const int num_lanes = std::min(LANES, settings.block - at * LANES);
            const Moment first = {number * (std::uint32_t)settings.block + (std::uint32_t)(at * LANES),
                                  number * (std::uint32_t)num_warps + (std::uint32_t)at, number, 0, 0};
            Warp &warp = warps.emplace_back(program, parameters, global, shared, sight, first, num_lanes);
            const auto set = [&](Special which, auto value) {
                Bits *to = warp.write(which, warp.exists);
                for_each_lane(warp.exists, [&](int lane) { to[lane] = (Bits)value(lane); });
            };
            const auto same = [](std::uint32_t value) { return [value](int) { return value; }; };
            set(TID_X, [&](int lane) { return at * LANES + lane; });
            set(LANEID, [](int lane) { return lane; });
            set(WARPID, same((std::uint32_t)at));
            set(TID_Y, same(0));
            set(TID_Z, same(0));
            set(NTID_X, same((std::uint32_t)settings.block));
            set(NTID_Y, same(1));
            set(NTID_Z, same(1));
            set(CTAID_X, same(x));
            set(CTAID_Y, same(y));
            set(CTAID_Z, same(z));
            set(NCTAID_X, same((std::uint32_t)settings.grid[0]));
            set(NCTAID_Y, same((std::uint32_t)settings.grid[1]));
            set(NCTAID_Z, same((std::uint32_t)settings.grid[2]));
        }
    }

    // Let go of the barrier when nobody can go on otherwise. Return whether the block is at its end.
    bool settle()
    {
        int meeting = -1;
        bool any_done = false, any_waits = false;
        for (const Warp &warp : warps) {
            if (warp.running()) return false;
            any_done = any_done || warp.done;
            any_waits = any_waits || (warp.at_barrier | warp.at_sync);
        }
        if (!any_waits) return true;
        for (const Warp &warp : warps) {
            for_each_lane(warp.at_barrier | warp.at_sync, [&](int lane) {
                const std::int64_t thread = (&warp - warps.data()) * LANES + lane;
                if (warp.at_sync >> lane & 1) throw Stop(Fault("it waits for lanes of its warp that never come here"), warp.pc[lane], number, thread);
                if (any_done) throw Stop(Fault("it waits at a barrier, and threads of its block have ended"), warp.pc[lane], number, thread);
                if (meeting >= 0 && warp.pc[lane] != meeting) {
                    throw Stop(Fault("threads of the block wait at two different barriers"), warp.pc[lane], number, thread);
                }
                meeting = warp.pc[lane];
            });
        }
        for (Warp &warp : warps) {
            for_each_lane(warp.at_barrier, [&](int lane) { ++warp.pc[lane]; });
            warp.at_barrier = 0;
            warp.pass_block_barrier();
        }
        sight.pass_barrier();
        return false;
    }

    const std::uint32_t number;

private:
    SharedMemory shared;
    Sight sight;

public:
    std::vector<Warp> warps;
};

class Launch {
public:
    Launch(const Program &program, const Settings &settings, unsigned char *parameters, std::vector<Range> ranges,
           std::uint64_t *counts)
        : program(program), settings(settings), parameters(parameters), global(std::move(ranges), settings.watches_races), counts(counts),
          random(settings.seed)
    {
        for (const Instruction &at : program.code) entries.push_back(find(at.entry));
    }

    void run()
    {
        const std::uint32_t num_blocks = (std::uint32_t)settings.grid[0] * (std::uint32_t)settings.grid[1] * (std::uint32_t)settings.grid[2];
        std::vector<std::uint32_t> waiting(num_blocks);
        for (std::uint32_t number = 0; number < num_blocks; ++number) waiting[number] = num_blocks - 1 - number;
        if (settings.is_random) std::shuffle(waiting.begin(), waiting.end(), random);
        std::vector<std::unique_ptr<Block>> resident;
        while (!waiting.empty() || !resident.empty()) {
            while (!waiting.empty() && (int)resident.size() < settings.num_resident) {
                resident.push_back(std::make_unique<Block>(program, settings, parameters, global, waiting.back()));
                waiting.pop_back();
            }
            const std::size_t which = pick(resident.size());
            Block &block = *resident[which];
            if (advance(block) && block.settle()) resident.erase(resident.begin() + (std::ptrdiff_t)which);
        }
    }

    std::uint64_t steps = 0, thread_steps = 0;

private:
    std::size_t pick(std::size_t size) { return settings.is_random ? random() % size : 0; }

    static const Entry *find(int entry)
    {
        static const std::vector<const Entry *> by_number = [] {
            std::vector<const Entry *> all;
            for (const auto &[name, found] : catalogue()) all.push_back(&found);
            return all;
        }();
        return by_number[(std::size_t)entry];
    }

    // Run some of a block. Return whether none of its threads can go on.
    bool advance(Block &block)
    {
        const std::size_t num_warps = block.warps.size(), first = pick(num_warps);
        for (std::size_t at = 0; at < num_warps; ++at) {
            Warp &warp = block.warps[(first + at) % num_warps];
            if (!warp.running()) continue;
            do {
                step(block, warp);
            } while (!settings.is_random && warp.running());
            return false;
        }
        return true;
    }

    // Run some threads of a warp that stand at the same instruction, until they part or wait.
    void step(Block &block, Warp &warp)
    {
        const Mask running = warp.running();
        int at = INT_MAX, next = INT_MAX, budget = INT_MAX;
        if (settings.is_random) {
            int nth = (int)(random() % (unsigned)std::popcount(running));
            for_each_lane(running, [&](int lane) { if (nth-- == 0) at = warp.pc[lane]; });
            budget = 1 + (int)(random() % 48);
        } else {
            for_each_lane(running, [&](int lane) { at = std::min(at, warp.pc[lane]); });
            for_each_lane(running, [&](int lane) { if (warp.pc[lane] != at) next = std::min(next, warp.pc[lane]); });
        }
        Mask lanes = 0;
        for_each_lane(running, [&](int lane) { lanes |= (Mask)(warp.pc[lane] == at) << lane; });
        if (settings.is_random && random() % 2) {
            const Mask some = lanes & (Mask)random();
            if (some) lanes = some;
        }
        const auto leave = [&](Mask which, int pc) { for_each_lane(which, [&](int lane) { warp.pc[lane] = pc; }); };
        for (;; --budget) {
            if (at >= next || budget <= 0) return leave(lanes, at);
            if (at >= (int)program.code.size()) {            // past the last instruction: a return
                warp.done |= lanes;
                return;
            }
            const Instruction &instruction = program.code[(std::size_t)at];
            const Entry &entry = *entries[(std::size_t)at];
            Mask active = lanes;
            try {
                if (++steps > settings.max_steps) throw Fault("the launch has not ended after " + std::to_string(settings.max_steps) + " instructions");
                if (instruction.guard >= 0) {
                    const Bits *guard = warp.read(instruction.guard, lanes);
                    for_each_lane(lanes, [&](int lane) {
                        if ((bool)guard[lane] == (bool)instruction.guard_negated) active &= ~(Mask(1) << lane);
                    });
                }
                thread_steps += (unsigned)std::popcount(active);
                counts[at] += active != 0;
                if (entry.flow == Flow::ON) {
                    if (active) entry.run(warp, instruction, active);
                    ++at;
                    continue;
                }
                if (entry.flow == Flow::TRAP && active) throw Fault("it is a trap");
            } catch (const Fault &fault) {
                const std::int64_t base = (&warp - block.warps.data()) * LANES;
                throw Stop(fault, at, block.number, fault.lane < 0 ? -1 : base + fault.lane);
            }
            if (entry.flow == Flow::BRANCH && active == lanes && lanes == warp.running()) {
                at = instruction.target;
                continue;
            }
            if (!active && lanes == warp.running()) {
                ++at;
                continue;
            }
            leave(lanes & ~active, at + 1);
            leave(active, entry.flow == Flow::BRANCH ? instruction.target : at);
            if (entry.flow == Flow::RETURN) warp.done |= active;
            if (entry.flow == Flow::BLOCK_BARRIER) warp.at_barrier |= active;
            if (entry.flow == Flow::WARP_BARRIER) {
                warp.at_sync |= active;
                meet(block, warp, at);
            }
            return;
        }
    }

    // Let go of a warp's lanes when all of them have come.
    void meet(Block &block, Warp &warp, int at)
    {
        const std::int64_t base = (&warp - block.warps.data()) * LANES;
        if (warp.at_sync != warp.exists) return;
        const Instruction &instruction = program.code[(std::size_t)at];
        int operand = MAX_FROM - 1;
        while (instruction.from[operand] == -1) --operand;
        for_each_lane(warp.exists, [&](int lane) {
            if (warp.pc[lane] != at) throw Stop(Fault("lanes of the warp wait at two different places"), at, block.number, base + lane);
            if (((Mask)warp.read(instruction.from[operand], warp.exists)[lane] & warp.exists) != warp.exists) {
                throw Stop(Fault("its mask leaves out lanes of the warp: not supported"), at, block.number, base + lane);
            }
        });
        try {
            if (entries[(std::size_t)at]->run) entries[(std::size_t)at]->run(warp, instruction, warp.exists);
        } catch (const Fault &fault) {
            throw Stop(fault, at, block.number, fault.lane < 0 ? -1 : base + fault.lane);
        }
        for_each_lane(warp.exists, [&](int lane) { ++warp.pc[lane]; });
        warp.at_sync = 0;
        warp.pass_warp_barrier();
    }

    const Program &program;
    const Settings settings;
    unsigned char *const parameters;
    GlobalMemory global;
    std::uint64_t *const counts;
    std::mt19937_64 random;
    std::vector<const Entry *> entries;
};

}  // namespace ptx

// ---------------------------------------------------------------------------------------------------- for Python
extern "C" {

int ptx_num_entries() { return (int)ptx::catalogue().size(); }

const char *ptx_entry(int number, int *flags, const char **operands)
{
    auto found = ptx::catalogue().begin();
    std::advance(found, number);
    *flags = found->second.flags;
    *operands = found->second.operands.text;
    return found->first.c_str();
}

void *ptx_make(const ptx::Instruction *code, int num_instructions, const ptx::Bits *constants, int num_constants, int num_registers,
               int local_bytes)
{
    auto program = std::make_unique<ptx::Program>();
    program->code.assign(code, code + num_instructions);
    program->num_registers = num_registers;
    program->local_bytes = local_bytes;
    for (int at = 0; at < num_constants; ++at) program->constants.insert(program->constants.end(), ptx::LANES, constants[at]);
    return program.release();
}

void ptx_free(void *program) { delete static_cast<ptx::Program *>(program); }

// Return 0 where the grid came to its end; `counts` says how often each instruction ran, by warps.
int ptx_launch(const void *program, const ptx::Settings *settings, unsigned char *parameters, const ptx::Range *ranges,
               int num_ranges, std::uint64_t *counts, ptx::Report *report)
{
    const auto say = [&](const char *message, int instruction, int block, int thread) {
        report->instruction = instruction;
        report->block = block;
        report->thread = thread;
        std::snprintf(report->message, sizeof report->message, "%s", message);
        return 1;
    };
    try {
        ptx::Launch launch(*static_cast<const ptx::Program *>(program), *settings, parameters, {ranges, ranges + num_ranges}, counts);
        launch.run();
        report->steps = launch.steps;
        report->thread_steps = launch.thread_steps;
        return 0;
    } catch (const ptx::Stop &stop) {
        return say(stop.what(), stop.instruction, (int)stop.block, (int)stop.thread);
    } catch (const std::exception &error) {
        return say(error.what(), -1, -1, -1);
    }
}

}
