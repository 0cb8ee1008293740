// Device memory as a kernel may use it: bounds, alignment, and a watch over who read and wrote each byte.
//
// Two accesses to a byte, one of them a write, are in order if one thread makes both, if all threads of their block meet at
// a barrier between them, if all lanes of their warp do, or by fences and atomic sums as order.h has it. Anything else is a
// race, whatever order this machine took. Atomic sums need no order among themselves, and are writes to all else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "order.h"

namespace ptx {

struct Fault : std::runtime_error {
    explicit Fault(const std::string &what, int lane = -1) : std::runtime_error(what), lane(lane) {}
    int lane;                    // of the warp that is at work; -1: all
};

enum class Access { READ, WRITE, ADD };

class Cell {                     // one byte
public:
    static constexpr std::uint32_t NOBODY = ~0u, SEVERAL = ~1u;

    bool is_written() const { return writer.thread != NOBODY; }

    void touch(Access how, const Moment &now, const Sight &sight)
    {
        if (how != Access::ADD) check(how, adder, "added to", now, sight);
        if (how != Access::READ) check(how, reader, "read", now, sight);
        check(how, writer, "wrote", now, sight);
        if (how == Access::WRITE) {
            writer = now;
            reader.thread = adder.thread = NOBODY;
        } else {
            join(how == Access::READ ? reader : adder, now, sight);
        }
    }

private:
    static void check(Access how, const Moment &then, const char *did, const Moment &now, const Sight &sight)
    {
        if (then.thread == NOBODY || is_before(then, now, sight)) return;
        const std::string who = then.thread == SEVERAL ? "several others" : "thread " + std::to_string(then.thread) + " of the grid";
        const char *does = how == Access::READ ? "reads" : how == Access::WRITE ? "writes" : "adds to";
        throw Fault(std::string("a race: it ") + does + " a byte that " + who + " " + did + ", with no barrier between");
    }

    // Makes one of those who read, or add, without an order among them; what comes after has to be in order with all.
    static void join(Moment &who, const Moment &now, const Sight &sight)
    {
        if (who.thread == NOBODY || is_before(who, now, sight)) {
            who = now;           // what is in order with this is so with all that came before it
        } else if (who.block != now.block) {
            who.thread = who.warp = who.block = SEVERAL;
        } else if (who.warp != now.warp) {
            who.thread = who.warp = SEVERAL;
        } else {
            who.thread = SEVERAL;
        }
    }

    static bool is_before(const Moment &then, const Moment &now, const Sight &sight)
    {
        return then.thread == now.thread || (then.block == now.block && then.epoch < now.epoch)
               || (then.warp == now.warp && then.warp_epoch < now.warp_epoch) || sight.has(then, now.thread);
    }

    Moment writer = {NOBODY, NOBODY, NOBODY, 0, 0};
    Moment reader = {NOBODY, NOBODY, NOBODY, 0, 0};
    Moment adder = {NOBODY, NOBODY, NOBODY, 0, 0};
};

struct Range {                   // an array that the kernel may touch; the launcher fills it in
    std::uint64_t begin, size;
    std::int32_t is_writable, reserved;
};

// Where generic addresses of shared and of local memory begin: no array of the host lies up there.
constexpr std::uint64_t SHARED_WINDOW = 1ull << 60, LOCAL_WINDOW = 1ull << 61;

class GlobalMemory {
public:
    explicit GlobalMemory(std::vector<Range> given, bool watches) : ranges(std::move(given)), cells(ranges.size())
    {
        std::sort(ranges.begin(), ranges.end(), [](const Range &a, const Range &b) { return a.begin < b.begin; });
        for (std::size_t at = 0; at < ranges.size(); ++at) {
            if (at && ranges[at].begin < ranges[at - 1].begin + ranges[at - 1].size) throw Fault("two arrays overlap");
            if (watches && ranges[at].is_writable) cells[at].resize(ranges[at].size);
        }
    }

    // Return where `width` bytes lie; `used` has a bit for each byte that counts.
    unsigned char *access(std::uint64_t address, unsigned width, std::uint32_t used, Access how, bool is_constant, const Moment &now,
                          const Sight &sight)
    {
        if (last >= ranges.size() || address - ranges[last].begin >= ranges[last].size) last = find(address);
        const Range &range = ranges[last];
        const std::uint64_t first = address - range.begin;
        if (first + width > range.size) {
            throw Fault("bytes " + std::to_string(first) + " to " + std::to_string(first + width - 1) + " of an array of "
                        + std::to_string(range.size));
        }
        if (how != Access::READ && !range.is_writable) throw Fault("it writes to an array that the launch only reads");
        if (is_constant && range.is_writable) throw Fault("it reads what the launch may write as if that never changed (ld.global.nc)");
        if (!cells[last].empty()) {
            for (unsigned byte = 0; byte < width; ++byte) {
                if (!(used >> byte & 1)) continue;
                cells[last][first + byte].touch(how, now, sight);
            }
        }
        return reinterpret_cast<unsigned char *>(address);
    }

    // What was left at a word by those who added to it. A store to it need not take that away: it is a race for who has not
    // seen all of them, and for whoever adds to the word later and has not seen the store, and with it the same.
    Shown &left_at(std::uint64_t address) { return words[address]; }

private:
    std::size_t find(std::uint64_t address) const
    {
        auto after = std::upper_bound(ranges.begin(), ranges.end(), address,
                                      [](std::uint64_t value, const Range &range) { return value < range.begin; });
        if (after == ranges.begin() || address - (after - 1)->begin >= (after - 1)->size) {
            throw Fault("address " + std::to_string(address) + " lies in no array of the launch");
        }
        return (std::size_t)(after - ranges.begin() - 1);
    }

    std::vector<Range> ranges;
    std::vector<std::vector<Cell>> cells;    // of the writable ones
    std::map<std::uint64_t, Shown> words;
    std::size_t last = 0;
};

class SharedMemory {             // of one block
public:
    SharedMemory(std::size_t size, bool watches) : bytes(size, 0xA5), cells(watches ? size : 0), watches(watches) {}

    unsigned char *access(std::uint64_t address, unsigned width, std::uint32_t used, Access how, const Moment &now, const Sight &sight)
    {
        if (address > bytes.size() || address + width > bytes.size()) {
            throw Fault("bytes " + std::to_string(address) + " to " + std::to_string(address + width - 1) + " of "
                        + std::to_string(bytes.size()) + " of shared memory");
        }
        for (unsigned byte = 0; watches && byte < width; ++byte) {
            if (!(used >> byte & 1)) continue;
            Cell &cell = cells[address + byte];
            if (how == Access::ADD && !cell.is_written()) throw Fault("it adds to what nobody wrote");
            cell.touch(how, now, sight);
        }
        return &bytes[address];
    }

    // Whether somebody wrote all of it. A compiler may load what it uses on some paths only, so that is no fault yet.
    bool is_written(const unsigned char *first, unsigned width) const
    {
        if (!watches || first < bytes.data() || first >= bytes.data() + bytes.size()) return true;
        const auto cell = cells.begin() + (first - bytes.data());
        return std::all_of(cell, cell + width, [](const Cell &one) { return one.is_written(); });
    }

private:
    std::vector<unsigned char> bytes;
    std::vector<Cell> cells;
    const bool watches;
};

class LocalMemory {              // of the threads of one warp
public:
    LocalMemory(std::size_t size, int num_lanes) : size(size), bytes(size * (std::size_t)num_lanes), known(bytes.size()) {}

    unsigned char *access(std::uint64_t address, unsigned width, Access how, int lane)
    {
        if (address > size || address + width > size) {
            throw Fault("bytes " + std::to_string(address) + " to " + std::to_string(address + width - 1) + " of " + std::to_string(size)
                        + " of local memory");
        }
        const std::size_t first = size * (std::size_t)lane + address;
        if (how != Access::READ) std::fill_n(known.begin() + (std::ptrdiff_t)first, width, true);
        return &bytes[first];
    }

    bool is_written(const unsigned char *first, unsigned width) const
    {
        if (first < bytes.data() || first >= bytes.data() + bytes.size()) return true;
        const auto at = known.begin() + (first - bytes.data());
        return std::all_of(at, at + width, [](unsigned char one) { return one; });
    }

private:
    const std::size_t size;      // of each thread's
    std::vector<unsigned char> bytes, known;
};

}  // namespace ptx
