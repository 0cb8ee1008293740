// Steps: those of a program, as gpuseq/plan/program.py has them, and what gpuseq/ops/listing.py makes of them for the engines.
#pragma once
#include <cstdint>

namespace {

constexpr int NUM_ARGUMENTS = 8;

struct ProgramStep {
    int16_t op;
    int8_t chain, bilinear;
    uint32_t fill;                       // a byte for each of four channels
    double args[NUM_ARGUMENTS];
};
static_assert(sizeof(ProgramStep) == 72, "STEP_DTYPE has no gaps");

// Of the listed steps: its code, eight numbers, the fill as four bytes of one number.
enum Code { FIXED = 1, LINES, PROJECTIVE, TABLE, COLOR, GREY, HUE, PERMUTE, BILINEAR, SHARPNESS, BLUR, CONTRAST, AUTOCONTRAST, EQUALIZE,
            MIX, CHAIN_END, MIX_END, KERAS };
constexpr int STEP_COLUMNS = 10, STEP_FILL = 9;

} // namespace
