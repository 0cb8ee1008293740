// Steps of programs from numbers in [0, 1), for all samples of a batch: the loops of gpuseq/plan/choices.py.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "normal.h"
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
    const int64_t *orders;               // (O, S): which steps come one after another; or null
    int64_t num_tables, num_choices, num_bins, num_steps, num_uniform, argument, num_orders, order;
    double spread, unit;
    double middle, deviation, most;      // where the deviation is not 0: of magnitudes that numbers become
};

namespace {

// Numbers of a sample that are kept at a time; more are left to NumPy.
constexpr int64_t MOST_UNIFORM = 1024;

enum Column { CHOICE, STRENGTH, SIGN, COIN, NUM_COLUMNS };

// The least number of the generator stands for 0, which is at minus infinity.
double magnitude_of(const ChoicesTable &table, double number)
{
    const double drawn = normal_quantile(number > 0x1p-54 ? number : 0x1p-54, table.middle, table.deviation);
    return std::min(std::max(drawn, 0.0), table.most);
}

// Of a level that is not negative.
double strength_of(const ChoicesLine &line, double level, bool is_low)
{
    double value = level * line.factor;
    value -= line.is_whole * (value - (double)(int64_t)value);
    value = value * line.signs[is_low] + line.offset;
    value = line.least > value ? line.least : value;
    return line.most < value ? line.most : value;
}

// The steps of a sample, each at its place, or those that do nothing last. False where a number that chooses is none in [0, 1).
// What numbers decide is no branch where that can be: no CPU guesses random numbers.
template <bool in_places> bool choose(const ChoicesTable &table, const double *own, ProgramStep *to)
{
    static const ProgramStep nothing{};
    const auto steps = (const ProgramStep *)table.steps;
    const double num_choices = (double)table.num_choices, num_bins = (double)table.num_bins;
    const int64_t *order = nullptr;
    if (table.orders) {
        const double in_orders = own[table.order] * (double)table.num_orders;
        if (!(in_orders >= 0 && in_orders < (double)table.num_orders)) return false;
        order = table.orders + (int64_t)in_orders * table.num_steps;
    }
    ProgramStep *next = to;
    for (int64_t at = 0; at < table.num_steps; ++at) {
        const int64_t number = order ? order[at] : at, *columns = table.columns + number * NUM_COLUMNS;
        const double in_choices = own[columns[CHOICE]] * num_choices;
        if (!(in_choices >= 0 && in_choices < num_choices)) return false;
        const int64_t place = (int64_t)in_choices + (table.num_tables > 1 ? number * table.num_choices : 0);
        const bool is_low = own[columns[SIGN]] <= 0.5;
        double value;
        if (table.lines) {
            const double strength = own[columns[STRENGTH]];
            const double magnitude = table.deviation != 0 ? magnitude_of(table, strength) : strength * table.spread;
            value = strength_of(table.lines[place], magnitude / table.unit, is_low);
        } else {
            const double in_bins = table.num_bins > 1 ? own[columns[STRENGTH]] * num_bins : 0.0;
            if (!(in_bins >= 0 && in_bins < num_bins)) return false;
            value = table.arguments[2 * (place * table.num_bins + (int64_t)in_bins) + is_low];
        }
        const ProgramStep *step = steps + place;
        if (table.within) {
            const double coin = own[columns[COIN]];
            const ProgramStep *const either[] = {&nothing, step};
            const double values[] = {0.0, value};
            const bool is_done = (coin >= table.within[2 * place]) & (coin < table.within[2 * place + 1]);
            step = either[is_done];
            value = values[is_done];
        }
        *next = *step;
        next->args[table.argument] = value;
        next += in_places || step->op != 0;
    }
    std::memset((void *)next, 0, (size_t)((char *)(to + table.num_steps) - (char *)next));
    return true;
}

bool choose_steps(const ChoicesTable &table, const double *uniform, int64_t num_samples, int64_t num_uniform, ProgramStep *to)
{
    if (num_uniform < table.num_uniform) return false;
    for (int64_t sample = 0; sample < num_samples; ++sample, uniform += num_uniform, to += table.num_steps)
        if (!choose<true>(table, uniform, to)) return false;
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

// All three for a batch: the numbers of its samples, their steps, and their order. `pitch` steps lie from sample to sample, and the
// first numbers of each are kept.
bool draw_steps(const ChoicesTable &table, const uint64_t *ids, int64_t num_samples, uint64_t seed, uint64_t epoch, uint64_t space,
                ProgramStep *to, int64_t pitch, double *kept, int64_t num_kept)
{
    if (table.num_uniform > MOST_UNIFORM || num_kept > table.num_uniform) return false;
    double own[MOST_UNIFORM + 3];
    for (int64_t sample = 0; sample < num_samples; ++sample, to += pitch, kept += num_kept) {
        for (int64_t at = 0; at < table.num_uniform; at += 4) write_block(ids[sample], (uint64_t)at / 4, space, seed, epoch, own + at);
        if (!choose<false>(table, own, to)) return false;
        std::copy(own, own + num_kept, kept);
    }
    return true;
}

// The first step of each sample that is mixed: the share of the mixture, how many chains there are, and their weights, which are
// waiting times divided by their sum. Of numbers in [0, 1): the share, and those of which `logarithms` are of what they lack to 1.
void write_mixes(const double *numbers, const double *logarithms, int64_t num_samples, int64_t num_chains, int64_t code, ProgramStep *to,
                 int64_t pitch)
{
    for (int64_t sample = 0; sample < num_samples; ++sample, to += pitch, numbers += 1 + num_chains, logarithms += num_chains) {
        double sum = -logarithms[0];
        for (int64_t chain = 1; chain < num_chains; ++chain) sum += -logarithms[chain];
        sum = std::max(sum, 0x1p-1000);
        *to = ProgramStep{};
        to->op = (int16_t)code;
        // timm blends in float32.
        to->args[0] = (double)(float)numbers[0];
        to->args[1] = (double)num_chains;
        for (int64_t chain = 0; chain < num_chains; ++chain) to->args[2 + chain] = (double)(float)(-logarithms[chain] / sum);
    }
}

} // namespace
