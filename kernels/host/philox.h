// Numbers by key: NumPy's Philox4x64-10, for many samples at once. gpuseq/plan/philox.py says which counters are whose.
#pragma once
#include <algorithm>
#include <cstdint>

namespace {

__extension__ typedef unsigned __int128 uint128_t;

struct Block {
    uint64_t words[4];
};

Block philox(Block counter, uint64_t key_0, uint64_t key_1)
{
    uint64_t(&words)[4] = counter.words;
    // Written out, so that the words stay in registers and the products of one block overlap with those of the next.
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        const uint128_t one = (uint128_t)0xD2E7470EE14C6C93u * words[0], other = (uint128_t)0xCA5A826395121157u * words[2];
        // In this order each word is read before it is written to.
        words[0] = (uint64_t)(other >> 64) ^ words[1] ^ key_0;
        words[1] = (uint64_t)other;
        words[2] = (uint64_t)(one >> 64) ^ words[3] ^ key_1;
        words[3] = (uint64_t)one;
        key_0 += 0x9E3779B97F4A7C15u;
        key_1 += 0xBB67AE8584CAA73Bu;
    }
    return counter;
}

// Four doubles in [0, 1): those of a block of a sample. 53 bits of each word, as NumPy makes a double of it.
void write_block(uint64_t id, uint64_t block, uint64_t space, uint64_t key_0, uint64_t key_1, double *to)
{
    const Block drawn = philox({{id, block, space, 0}}, key_0, key_1);
    for (int word = 0; word < 4; ++word) to[word] = (double)(drawn.words[word] >> 11) * 0x1p-53;
}

// `num_doubles` of each sample. Its counters are one behind another where `space` is 0, and else they count in their second word.
void uniform_rows(const uint64_t *ids, int64_t num_samples, int64_t num_doubles, uint64_t key_0, uint64_t key_1, uint64_t space,
                  double *to)
{
    const uint64_t num_blocks = (uint64_t)(num_doubles + 3) / 4;
    double rest[4];
    for (int64_t sample = 0; sample < num_samples; ++sample) {
        for (int64_t at = 0; at < num_doubles; at += 4) {
            const uint64_t block = (uint64_t)at / 4, first = space ? ids[sample] : ids[sample] * num_blocks + 1 + block;
            const int64_t count = num_doubles - at < 4 ? num_doubles - at : 4;
            write_block(first, space ? block : 0, space, key_0, key_1, count < 4 ? rest : to);
            if (count < 4) std::copy(rest, rest + count, to);
            to += count;
        }
    }
}

} // namespace
