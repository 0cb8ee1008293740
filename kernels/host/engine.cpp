// What the shared library offers: the instruction sets that were compiled into it, which of them run here, numbers by key,
// files, programs drawn, looked at and cut into segments.
#include "boxes.h"
#include "choices.h"
#include "files.h"
#include "job.h"
#include "limits.h"
#include "normal.h"
#include "philox.h"
#include "program.h"
#include "resize.h"
#include "segments.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

extern "C" const AugmentEngine gpuseq_augment_baseline;
extern "C" const ProgramEngine gpuseq_program_baseline;
extern "C" const ResizeEngine gpuseq_resize_baseline;
#if defined(__x86_64__)
extern "C" const AugmentEngine gpuseq_augment_avx2;
extern "C" const ProgramEngine gpuseq_program_avx2;
extern "C" const ProgramEngine gpuseq_program_avx512;
extern "C" const ResizeEngine gpuseq_resize_avx2;
#endif

namespace {

struct InstructionSet {
    const char *name;
    const AugmentEngine *augment;
    const ProgramEngine *program;
    const ResizeEngine *resize;
    bool (*runs_here)();
};

#if defined(__x86_64__)
bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
#endif

const InstructionSet SETS[] = {          // the widest first
#if defined(__x86_64__)
    // The tests ask the CPU, and the operating system whether it keeps the wide registers. Only programs have their own text
    // for AVX-512: a table of 256 bytes is two of its instructions.
    {"avx512", &gpuseq_augment_avx2, &gpuseq_program_avx512, &gpuseq_resize_avx2,
     [] { return runs_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi"); }},
    {"avx2", &gpuseq_augment_avx2, &gpuseq_program_avx2, &gpuseq_resize_avx2,
     [] { return runs_avx2(); }},
#endif
    {"baseline", &gpuseq_augment_baseline, &gpuseq_program_baseline, &gpuseq_resize_baseline, [] { return true; }},
};
constexpr int NUM_SETS = sizeof SETS / sizeof *SETS;

} // namespace

// Raised whenever a field of a job or a function below changes.
EXPORT int gpuseq_abi() { return 16; }
EXPORT int gpuseq_job_bytes() { return (int)sizeof(Job); }
EXPORT int gpuseq_program_job_bytes() { return (int)sizeof(ProgramJob); }
EXPORT int gpuseq_resize_job_bytes() { return (int)sizeof(ResizeJob); }
EXPORT int gpuseq_file_record_bytes() { return (int)sizeof(FileRecord); }
EXPORT int gpuseq_choices_bytes() { return (int)sizeof(ChoicesTable); }
EXPORT int gpuseq_boxes_bytes() { return (int)sizeof(BoxesTable); }
EXPORT int gpuseq_cut_job_bytes() { return (int)sizeof(CutJob); }
EXPORT int gpuseq_cut_found_bytes() { return (int)sizeof(CutFound); }

// The name of instruction set `number`, or null past the last.
EXPORT const char *gpuseq_set_name(int number) { return number >= 0 && number < NUM_SETS ? SETS[number].name : nullptr; }
EXPORT int gpuseq_set_runs_here(int number) { return SETS[number].runs_here(); }

// The caller has checked that the set runs here.
EXPORT int64_t gpuseq_augment_scratch(int number, const Job *job) { return SETS[number].augment->scratch_bytes(job); }
EXPORT int64_t gpuseq_augment_kept(int number, const Job *job) { return SETS[number].augment->kept_bytes(job); }
EXPORT void gpuseq_augment(int number, const Job *job, int64_t first, int64_t last, unsigned char *scratch)
{
    SETS[number].augment->augment(job, first, last, scratch);
}
EXPORT int64_t gpuseq_program_scratch(int number, const ProgramJob *job, const Job *finish)
{
    return SETS[number].program->scratch_bytes(job) + SETS[number].augment->scratch_bytes(finish);
}
EXPORT void gpuseq_program(int number, const ProgramJob *job, const Job *finish, int64_t first, int64_t last, unsigned char *scratch)
{
    SETS[number].program->run(job, finish, SETS[number].augment, first, last, scratch);
}
EXPORT int64_t gpuseq_resize_scratch(int number, const ResizeJob *job) { return SETS[number].resize->scratch_bytes(job); }
EXPORT void gpuseq_resize(int number, const ResizeJob *job, unsigned char *scratch) { SETS[number].resize->resize(job, scratch); }
EXPORT void gpuseq_philox(const uint64_t *ids, int64_t num_samples, int64_t num_doubles, uint64_t seed, uint64_t epoch, uint64_t space,
                          double *to)
{
    uniform_rows(ids, num_samples, num_doubles, seed, epoch, space, to);
}
// `count` names, each with a zero at its end: into `room`, from byte `taken` on. Returns the bytes that are taken then; after about
// `most` nanoseconds also with files that nobody has begun.
EXPORT int64_t gpuseq_read_files(const char *names, FileRecord *records, int64_t count, uint8_t *room, int64_t room_bytes,
                                 int64_t taken, int32_t buffer, int64_t largest, int64_t most, int32_t num_threads)
{
    return read_files(names, records, count, room, room_bytes, taken, buffer, largest, most, num_threads);
}

// 0; -1 where the program is left to NumPy; or the bytes that the room has to have, where it has fewer.
EXPORT int64_t gpuseq_list_steps(CutJob *job, CutFound *found)
{
    if (!count_steps(*job)) return -1;
    const int64_t num_bytes = Work(*job, nullptr).num_bytes;
    if (num_bytes > job->room_bytes) return num_bytes;
    return list_steps(*job, found) ? 0 : -1;
}
EXPORT int gpuseq_cut_steps(const CutJob *job, CutFound *found) { return cut_steps(*job, found); }
EXPORT void gpuseq_write_segments(const CutJob *job, const CutFound *found, unsigned char *to) { write_segments(*job, found, to); }

EXPORT void gpuseq_normal_quantiles(const double *numbers, int64_t count, double middle, double deviation, double *to)
{
    normal_quantiles(numbers, count, middle, deviation, to);
}
EXPORT int gpuseq_choose_steps(const ChoicesTable *table, const double *uniform, int64_t num_samples, int64_t num_uniform, ProgramStep *to)
{
    return choose_steps(*table, uniform, num_samples, num_uniform, to);
}
EXPORT int gpuseq_draw_steps(const ChoicesTable *table, const uint64_t *ids, int64_t num_samples, uint64_t seed, uint64_t epoch,
                             uint64_t space, ProgramStep *to, int64_t pitch, double *kept, int64_t num_kept)
{
    return draw_steps(*table, ids, num_samples, seed, epoch, space, to, pitch, kept, num_kept);
}
EXPORT void gpuseq_write_mixes(const double *numbers, const double *logarithms, int64_t num_samples, int64_t num_chains, int64_t code,
                               ProgramStep *to, int64_t pitch)
{
    write_mixes(numbers, logarithms, num_samples, num_chains, code, to, pitch);
}
EXPORT int gpuseq_draw_boxes(const BoxesTable *table, const uint64_t *ids, int64_t num_samples, uint64_t seed, uint64_t epoch,
                             uint64_t space, ProgramStep *to, int64_t pitch)
{
    return draw_boxes(*table, ids, num_samples, seed, epoch, space, to, pitch);
}
EXPORT void gpuseq_put_identities_last(ProgramStep *steps, int64_t num_samples, int64_t num_steps)
{
    put_identities_last(steps, num_samples, num_steps);
}
EXPORT int gpuseq_are_within_limits(const ProgramStep *steps, int64_t count, int64_t rows, int64_t cols, const int8_t *limits,
                                    int64_t num_codes)
{
    return are_within_limits(steps, count, rows, cols, limits, num_codes);
}
