// Steps of programs from numbers in [0, 1), for all samples of a batch: the loops of gpuseq/plan/choices.py.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "steps.h"

// What is chosen from. gpuseq/ops/compiled/choices.py fills it.
struct ChoicesTable {
    const int16_t *codes;                // (E,)
    const uint8_t *moves;                // (E,)
    const double *arguments;             // (E, B, 2)
    int64_t num_codes, num_bins, num_steps;
    int64_t choice, sign, number, stride, bin;       // columns of a sample's numbers; a negative `number`: it is always `bin`
    int32_t bilinear;
    uint8_t fill[4];
};

namespace {

// False where a number is none in [0, 1), or one is not there.
bool choose_steps(const ChoicesTable &table, const double *uniform, int64_t num_samples, int64_t num_uniform, ProgramStep *to)
{
    const int64_t last = (table.num_steps - 1) * table.stride + std::max(std::max(table.choice, table.sign), table.number);
    if (last >= num_uniform) return false;
    for (int64_t sample = 0; sample < num_samples; ++sample, uniform += num_uniform)
        for (int64_t number = 0; number < table.num_steps; ++number, ++to) {
            const double *own = uniform + number * table.stride;
            const double in_codes = own[table.choice] * (double)table.num_codes;
            const double in_bins = table.number < 0 ? (double)table.bin : own[table.number] * (double)table.num_bins;
            if (!(in_codes >= 0 && in_codes < (double)table.num_codes && in_bins >= 0 && in_bins < (double)table.num_bins)) return false;
            const int64_t chosen = (int64_t)in_codes, bin = (int64_t)in_bins;
            std::memset((void *)to, 0, sizeof *to);
            to->op = table.codes[chosen];
            to->args[0] = table.arguments[2 * (chosen * table.num_bins + bin) + (own[table.sign] <= 0.5)];
            if (!table.moves[chosen]) continue;
            to->bilinear = (int8_t)table.bilinear;
            std::memcpy(&to->fill, table.fill, sizeof to->fill);
        }
    return true;
}

// Steps that do nothing come behind the others of their sample; both keep their order.
void put_identities_last(ProgramStep *steps, int64_t num_samples, int64_t num_steps)
{
    for (ProgramStep *const end = steps + num_samples * num_steps; steps < end; steps += num_steps) {
        int64_t first = 0;               // of those that do nothing
        for (int64_t at = 0; at < num_steps; ++at) {
            if (steps[at].op == 0) continue;
            if (first < at) std::rotate(steps + first, steps + at, steps + at + 1);
            ++first;
        }
    }
}

} // namespace
