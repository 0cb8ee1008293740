// What the CPU engine is handed: one batch. gpuseq/ops/compiled/library.py fills it, field by field in this order.
#pragma once
#include <cstddef>
#include <cstdint>

enum SourceKind { SOURCE_UINT8, SOURCE_UINT16, SOURCE_FLOAT32, SOURCE_FLOAT64 };

// What is done to a sample of which something is reduced, in this order. Several threads may share one, a band of rows each:
// then all of them are waited for between two stages. A GATHER stage takes the sample as a whole, and little time.
enum Stage {
    STAGE_VALUES,                // affine, into `Kept`
    STAGE_COLOURS,               // recolour and preprocess, and add up
    GATHER_VALUES,
    STAGE_CENTER,                // subtract the mean, and add up again
    GATHER_CENTRED,
    STAGE_SQUARES,               // add up the squares of what is left
    GATHER_SQUARES,
    STAGE_BATCH,                 // divide, and everything up to the batch
    NUM_STAGES
};

// Plain C: pointers first, then 64-bit numbers, then 32-bit ones, so that no compiler puts a gap in between.
struct Job {
    const void *images;          // (M, H, W, C) or (M, C, H, W), of source_kind
    const double *table;         // (N, NUM_COLUMNS), or null: sample n is row n of `images`, untouched by affine and colour
    void *out;                   // (N, H, W, C) or (N, C, H, W), of out_kind; does not overlap `images`
    const void *mean_c;          // (C,) of the compute type, or null
    const void *divisor_c;       // the same; already holds the 1e-6
    void *kept;                  // samples that threads share, `kept_bytes` for each; null where one thread does a whole one
    double cval, rescale;
    int32_t num_samples, height, width, channels;
    int32_t source_kind;         // a SourceKind
    int32_t is_double;           // whether the arithmetic is in double rather than in float
    int32_t out_kind;            // one of the OUT_* of common.cuh
    int32_t source_channels_last, out_channels_last;
    int32_t order, fill_mode, corrected, round_affine;       // as the macros of common.cuh
    int32_t has_affine, has_flip, has_channel_shift, has_brightness;
    int32_t has_range;           // whether a sample's range after the affine map is needed
    int32_t preprocess;          // 0: none, 1: tf, 2: caffe, 3: torch
    int32_t samplewise_center, samplewise_std;
    int32_t streams;             // whether a float32 batch is so large that it should pass the caches by
    int32_t rows_per_unit;       // rows of a unit of work; of a sample that is reduced all, or a power of two with `kept`
    int32_t stage;               // with `kept`: the Stage that is done
};

// One instruction set's half of the engine; the other is in resize.h.
struct AugmentEngine {
    // Bytes that `augment` needs for itself, by thread; -1 for a batch that it does not know.
    int64_t (*scratch_bytes)(const Job *);
    // Bytes of `Job::kept` for each sample.
    int64_t (*kept_bytes)(const Job *);
    // Makes the units [first, last): unit u is the rows of band u % bands of sample u / bands, and sample u in a GATHER stage.
    void (*augment)(const Job *, int64_t first, int64_t last, unsigned char *scratch);
};
