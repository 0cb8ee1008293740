// Steps of programs from numbers in [0, 1), for all samples of a batch: the loops of gpuseq/plan/choices.py.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "philox.h"
#include "steps.h"

// LINE_DTYPE there.
struct ChoicesLine {
    double factor, is_whole, signs[2], offset, least, most;
};

// What is chosen from. gpuseq/ops/compiled/choices.py fills it.
struct ChoicesTable {
    const void *steps;                   // (T, E) of ProgramStep
    const int64_t *columns;              // (S, 4): of a sample's numbers
    const double *arguments;             // (T, E, B, 2), or null
    const ChoicesLine *lines;            // (T, E), or null
    const double *within;                // (T, E, 2), or null
    int64_t num_tables, num_choices, num_bins, num_steps, num_uniform;
    double spread, unit;
};

namespace {

// Numbers of a sample that are kept at a time; more are left to NumPy.
constexpr int64_t MOST_UNIFORM = 1024;

enum Column { CHOICE, STRENGTH, SIGN, COIN, NUM_COLUMNS };

double strength_of(const ChoicesLine &line, double level, bool is_low)
{
    double value = level * line.factor;
    if (line.is_whole != 0) value = std::floor(value);
    value = value * line.signs[is_low] + line.offset;
    value = value < line.least ? line.least : value;
    return value > line.most ? line.most : value;
}

// The steps of a sample. False where a number that chooses is none in [0, 1).
bool choose(const ChoicesTable &table, const double *own, ProgramStep *to)
{
    const auto steps = (const ProgramStep *)table.steps;
    const int64_t *columns = table.columns;
    const double num_choices = (double)table.num_choices, num_bins = (double)table.num_bins;
    for (int64_t number = 0; number < table.num_steps; ++number, ++to, columns += NUM_COLUMNS) {
        const double in_choices = own[columns[CHOICE]] * num_choices;
        if (!(in_choices >= 0 && in_choices < num_choices)) return false;
        const int64_t place = (int64_t)in_choices + (table.num_tables > 1 ? number * table.num_choices : 0);
        if (table.within) {
            const double coin = own[columns[COIN]];
            if (coin < table.within[2 * place] || coin >= table.within[2 * place + 1]) {
                std::memset((void *)to, 0, sizeof *to);
                continue;
            }
        }
        *to = steps[place];
        const bool is_low = own[columns[SIGN]] <= 0.5;
        if (table.lines) {
            to->args[0] = strength_of(table.lines[place], own[columns[STRENGTH]] * table.spread / table.unit, is_low);
            continue;
        }
        double in_bins = 0;
        if (table.num_bins > 1) {
            in_bins = own[columns[STRENGTH]] * num_bins;
            if (!(in_bins >= 0 && in_bins < num_bins)) return false;
        }
        to->args[0] = table.arguments[2 * (place * table.num_bins + (int64_t)in_bins) + is_low];
    }
    return true;
}

// `num_before` steps of each sample come before these, and are cleared.
bool choose_steps(const ChoicesTable &table, const double *uniform, int64_t num_samples, int64_t num_uniform, int64_t num_before,
                  ProgramStep *to)
{
    if (num_uniform < table.num_uniform) return false;
    for (int64_t sample = 0; sample < num_samples; ++sample, uniform += num_uniform, to += table.num_steps) {
        std::memset((void *)to, 0, sizeof *to * (size_t)num_before);
        to += num_before;
        if (!choose(table, uniform, to)) return false;
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

// All three for a batch: the numbers of its samples, their steps, and their order.
bool draw_steps(const ChoicesTable &table, const uint64_t *ids, int64_t num_samples, uint64_t seed, uint64_t epoch, uint64_t space,
                ProgramStep *to)
{
    if (table.num_uniform > MOST_UNIFORM) return false;
    double own[MOST_UNIFORM + 3];
    for (int64_t sample = 0; sample < num_samples; ++sample, to += table.num_steps) {
        for (int64_t at = 0; at < table.num_uniform; at += 4) write_block(ids[sample], (uint64_t)at / 4, space, seed, epoch, own + at);
        if (!choose(table, own, to)) return false;
        put_identities_last(to, 1, table.num_steps);
    }
    return true;
}

} // namespace
