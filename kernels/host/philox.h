// Numbers by key: NumPy's Philox4x64-10, for many samples at once. gpuseq/plan/philox.py says which counters are whose.
#pragma once
#include <algorithm>
#include <cstdint>

namespace {

__extension__ typedef unsigned __int128 uint128_t;

struct Block {
    uint64_t words[4];
};

// Several at once: each product waits for the one before it, and those of other blocks fill the time.
constexpr int AT_ONCE = 4;

void philox(Block *blocks, uint64_t key_0, uint64_t key_1)
{
    for (int round = 0; round < 10; ++round) {
        for (int each = 0; each < AT_ONCE; ++each) {
            uint64_t(&words)[4] = blocks[each].words;
            const uint128_t one = (uint128_t)0xD2E7470EE14C6C93u * words[0], other = (uint128_t)0xCA5A826395121157u * words[2];
            // In this order each word is read before it is written to.
            words[0] = (uint64_t)(other >> 64) ^ words[1] ^ key_0;
            words[1] = (uint64_t)other;
            words[2] = (uint64_t)(one >> 64) ^ words[3] ^ key_1;
            words[3] = (uint64_t)one;
        }
        key_0 += 0x9E3779B97F4A7C15u;
        key_1 += 0xBB67AE8584CAA73Bu;
    }
}

// Doubles in [0, 1), `num_doubles` of each sample. Its counters are one behind another where `space` is 0, and else they count in
// their second word.
void uniform_rows(const uint64_t *ids, int64_t num_samples, int64_t num_doubles, const uint64_t *key, uint64_t space, double *to)
{
    const int64_t num_blocks = (num_doubles + 3) / 4, most = num_samples * num_blocks;
    for (int64_t first = 0; first < most; first += AT_ONCE) {
        const int64_t count = std::min<int64_t>(AT_ONCE, most - first);
        Block blocks[AT_ONCE] = {};
        for (int64_t each = 0; each < count; ++each) {
            const uint64_t id = ids[(first + each) / num_blocks], block = (uint64_t)((first + each) % num_blocks);
            blocks[each] = space ? Block{{id, block, space, 0}} : Block{{id * (uint64_t)num_blocks + 1 + block, 0, 0, 0}};
        }
        philox(blocks, key[0], key[1]);
        for (int64_t each = 0; each < count; ++each) {
            // Of a sample's last block not all may be wanted.
            const int64_t wanted = std::min<int64_t>(4, num_doubles - (first + each) % num_blocks * 4);
            // 53 bits of each word, as NumPy makes a double of it.
            for (int64_t word = 0; word < wanted; ++word) *to++ = (double)(blocks[each].words[word] >> 11) * 0x1p-53;
        }
    }
}

} // namespace
