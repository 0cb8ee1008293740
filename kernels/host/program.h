// What the CPU engine is handed for one sample of a program. gpuseq/ops/compiled/program.py fills it.
#pragma once
#include <cstdint>

struct ProgramJob {
    const uint8_t *source;               // one image; the strides are in bytes
    int64_t row_stride, col_stride, channel_stride;
    uint8_t *target;                     // (H, W, C), C-contiguous
    const double *steps;                 // (num_steps, 10): gpuseq.ops.segments says what the numbers are
    const uint8_t *tables;               // (T, 3, 256)
    const int32_t *lines;
    const double *weights;
    int32_t num_steps, height, width, channels;
};

struct ProgramEngine {
    int64_t (*scratch_bytes)(const ProgramJob *);
    void (*run)(const ProgramJob *, unsigned char *scratch);
};
