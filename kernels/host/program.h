// What the CPU engine is handed for the programs of a batch. gpuseq/ops/compiled/program.py fills it.
#pragma once
#include "job.h"

struct ProgramJob {
    const uint8_t *images;               // (M, H, W, C); the strides are in bytes
    int64_t image_stride, row_stride, col_stride, channel_stride;
    const int64_t *rows;                 // (N,): the image of each sample
    const int64_t *samples;              // (N, 4): first step, steps, first erasing step, erasing steps
    const double *steps;                 // (K, 10): gpuseq.ops.listing says what the numbers are
    const uint8_t *tables;               // (T, 3, 256)
    const int32_t *lines;
    const double *weights;
    const double *erases;                // (E, 9)
    const float *quantiles;              // (65536,): for noise, or null
    // (N,): whose first step looks at its image, the row of `learned` that tables for later batches go to; -1 for none. Or null.
    const int64_t *learns;
    uint8_t *learned;                    // (L, 3, 3, 256): of a contrast with the factor 0, of autocontrast, of equalize
    int32_t height, width, channels;
    int32_t has_blur, has_mix;           // whether any sample has such a step
};

struct ProgramEngine {
    // Bytes that `run` needs for itself, by thread, but for what `finish` needs.
    int64_t (*scratch_bytes)(const ProgramJob *);
    // Makes the samples [first, last). `finish` says what becomes of the levels of one sample; its images and out are set here.
    void (*run)(const ProgramJob *, const Job *finish, const AugmentEngine *, int64_t first, int64_t last, unsigned char *scratch);
};
