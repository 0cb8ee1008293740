// Steps of a drawn rectangle, for all samples of a batch: the loops of gpuseq/plan/boxes.py.
#pragma once
#include <cmath>
#include <cstdint>

#include "philox.h"
#include "steps.h"

// What is drawn. gpuseq/ops/compiled/boxes.py fills it.
struct BoxesTable {
    const void *step, *otherwise;        // of ProgramStep: whole but for the rectangle; what is there where none fits
    double rows, cols;                   // of the images
    double most_rows, most_cols;         // of a rectangle
    double scale[2], log_ratio[2];       // the least, and how much more there may be
    double p;                            // with a coin: done where it lies below
    int64_t num_before;                  // numbers before those of the rectangle; the first is the coin, the second the key
    int32_t is_tall, has_key;
};

namespace {

constexpr int64_t NUM_TRIES = 10;
constexpr double NUM_KEYS = 9007199254740992.0;      // 2 to the power of 53

// Whether a side is rounded to the same number whichever library's exp it was made with: those differ in the last digits, and
// NumPy's is another on each machine. Not so for what is no number.
bool is_certain(double side) { return std::fabs(side - std::floor(side) - 0.5) > side * 1e-12; }

// Half to even, of what is not negative and certain to lie at no half.
double rounded(double side) { return std::floor(side + 0.5); }

// False where anything is left to NumPy.
bool draw_boxes(const BoxesTable &table, const uint64_t *ids, int64_t num_samples, uint64_t seed, uint64_t epoch, uint64_t space,
                ProgramStep *to, int64_t pitch)
{
    const int64_t corner = table.num_before + 2 * NUM_TRIES;
    for (int64_t sample = 0; sample < num_samples; ++sample, to += pitch) {
        double own[28];
        int64_t num_known = 0;
        // Most samples take the first or the second try, and never ask for the numbers of the others.
        const auto need = [&](int64_t last) {
            for (; num_known <= last; num_known += 4) write_block(ids[sample], (uint64_t)num_known / 4, space, seed, epoch, own + num_known);
        };
        need(0);
        if (table.num_before && !(own[0] < table.p)) {
            *to = ProgramStep{};
            continue;
        }
        *to = *(const ProgramStep *)table.otherwise;
        for (int64_t at = table.num_before; at < corner; at += 2) {
            need(at + 1);
            const double area = table.rows * table.cols * (table.scale[0] + table.scale[1] * own[at]);
            const double ratio = std::exp(table.log_ratio[0] + table.log_ratio[1] * own[at + 1]);
            const double one = std::sqrt(area * ratio), other = std::sqrt(area / ratio);
            if (!is_certain(one) || !is_certain(other)) return false;
            const double rows = rounded(table.is_tall ? one : other), cols = rounded(table.is_tall ? other : one);
            if (!(rows > 0 && rows <= table.most_rows && cols > 0 && cols <= table.most_cols)) continue;
            if (num_known <= corner) write_block(ids[sample], (uint64_t)corner / 4, space, seed, epoch, own + corner / 4 * 4);
            *to = *(const ProgramStep *)table.step;
            to->args[0] = std::trunc(own[corner] * (table.rows - rows + 1));
            to->args[1] = std::trunc(own[corner + 1] * (table.cols - cols + 1));
            to->args[2] = rows;
            to->args[3] = cols;
            if (table.has_key) to->args[4] = std::floor(own[1] * NUM_KEYS);
            break;
        }
    }
    return true;
}

} // namespace
