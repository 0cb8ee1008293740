// The numbers of a step, as gpuseq/ops/listing.py lists them: its code, eight arguments, the fill as four bytes of one number.
#pragma once

namespace {

enum Code { FIXED = 1, LINES, PROJECTIVE, TABLE, COLOR, GREY, HUE, PERMUTE, BILINEAR, SHARPNESS, BLUR, CONTRAST, AUTOCONTRAST, EQUALIZE,
            MIX, CHAIN_END, MIX_END, KERAS };
constexpr int STEP_COLUMNS = 10, STEP_FILL = 9;

} // namespace
