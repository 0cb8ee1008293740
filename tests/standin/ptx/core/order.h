// What comes before what in several blocks: by fences, and by atomic sums of one word.
//
// A fence shows what its block did before the block's last barrier, and what the thread has been shown. Whoever adds to a
// word after it leaves that there; whoever adds to the same word later, and then comes to a fence, sees it, and the other
// threads of its block do from their next barrier on. CUDA's order has more, such as a thread's own accesses since the
// barrier: that is called a race here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>

namespace ptx {

struct Moment {                  // a thread, and how many barriers it has passed
    std::uint32_t thread, warp, block;       // counted over the whole grid
    std::uint32_t epoch, warp_epoch;         // barriers of its block, of its warp
};

class Shown {                    // what is in order of each block: what it did before so many barriers
public:
    bool has(const Moment &then) const
    {
        const auto found = epochs.find(then.block);
        return found != epochs.end() && then.epoch < found->second;
    }

    void add(std::uint32_t block, std::uint32_t epoch)
    {
        std::uint32_t &known = epochs[block];
        known = std::max(known, epoch);
    }

    void add(const Shown &other)
    {
        for (const auto &[block, epoch] : other.epochs) add(block, epoch);
    }

private:
    std::map<std::uint32_t, std::uint32_t> epochs;
};

class Sight {                    // what the threads of a block see of others
public:
    bool has(const Moment &then, std::uint32_t thread) const
    {
        if (threads.empty()) return false;   // as in most kernels
        const auto found = threads.find(thread);
        return by_all.has(then) || (found != threads.end() && found->second.seen.has(then));
    }

    void pass_fence(const Moment &now)
    {
        Thread &own = threads[now.thread];
        own.seen.add(own.met);
        own.showing = by_all;
        own.showing.add(own.seen);
        own.showing.add(now.block, now.epoch);
    }

    void add_to(Shown &word, const Moment &now)
    {
        Thread &own = threads[now.thread];
        own.met.add(word);
        word.add(own.showing);
    }

    void pass_barrier()
    {
        for (const auto &[thread, own] : threads) by_all.add(own.seen);
    }

private:
    struct Thread {
        Shown met;               // at words that it has added to
        Shown seen;              // the same, up to its last fence
        Shown showing;           // since its last fence
    };

    Shown by_all;                // since the last barrier
    std::map<std::uint32_t, Thread> threads;
};

}  // namespace ptx
