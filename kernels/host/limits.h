// Whether the numbers of a program's steps are ones that an engine may follow, as gpuseq/ops/checks.py says it.
#pragma once
#include <cmath>
#include <cstdint>

#include "steps.h"

namespace {

// The numbers of _LIMITS in gpuseq/ops/compiled/checks.py. CROP: that is looked at there.
enum Limit { ANY, BITS, CHANNELS, KERNEL, MAP, CHAINS, RECTANGLE, CROP, HALF_TURN, NOISE, MAP_ABOUT, TURN_ABOUT };

bool is_within(const double *args, int limit, double rows, double cols)
{
    const auto are_finite = [&](int count) {
        for (int number = 0; number < count; ++number)
            if (!std::isfinite(args[number])) return false;
        return true;
    };
    // Written so that no number does not fit.
    const auto is_one_of = [&](int first, int last, int count) {
        for (int number = 0; number < count; ++number)
            if (!(args[number] >= first && args[number] <= last && args[number] == std::floor(args[number]))) return false;
        return true;
    };
    switch (limit) {
    case BITS: return args[0] >= 0 && args[0] <= 8;
    case CHANNELS: return is_one_of(0, 2, 3);
    case KERNEL:
        for (int axis = 0; axis < 2; ++axis)
            if (!(args[axis] >= 1 && std::fmod(args[axis], 2.0) == 1 && std::floor(args[axis] / 2) < (axis ? rows : cols))) return false;
        return args[2] > 0 && std::isfinite(args[2]);
    case MAP: return are_finite(6) && args[3] != 0;
    case MAP_ABOUT: return are_finite(8) && args[3] != 0;
    case TURN_ABOUT: return are_finite(3);
    case CHAINS: ++args; return is_one_of(1, 5, 1);
    case HALF_TURN: return args[0] >= -0.5 && args[0] <= 0.5;
    case NOISE:
        if (!(args[4] >= 0 && args[4] < 0x1p53 && args[4] == std::floor(args[4]))) return false;
        [[fallthrough]];
    case RECTANGLE:
        return args[0] >= 0 && args[1] >= 0 && args[2] >= 0 && args[3] >= 0 && args[0] + args[2] <= rows && args[1] + args[3] <= cols;
    default: return limit == ANY;
    }
}

bool are_within_limits(const ProgramStep *steps, int64_t count, int64_t rows, int64_t cols, const int8_t *limits, int64_t num_codes)
{
    for (const ProgramStep *step = steps; step < steps + count; ++step)
        if (step->op < 0 || step->op >= num_codes || !is_within(step->args, limits[step->op], (double)rows, (double)cols)) return false;
    return true;
}

} // namespace
