// What the shared library offers: the instruction sets that were compiled into it, and which of them runs here.
#include "job.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

#if defined(__x86_64__)
extern "C" const Engine gpuseq_baseline, gpuseq_avx2, gpuseq_avx512;
#else
extern "C" const Engine gpuseq_baseline;
#endif

namespace {

struct Choice {
    const char *name;
    const Engine *engine;
    bool (*runs)();
};

// GCC's and Clang's test asks the CPU, and the operating system whether it keeps the wide registers.
#if defined(__x86_64__)
const Choice CHOICES[] = {
    {"avx512", &gpuseq_avx512, [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
                && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx2")
                && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
     }},
    {"avx2", &gpuseq_avx2, [] {
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
     }},
    {"baseline", &gpuseq_baseline, [] { return true; }},
};
#else
const Choice CHOICES[] = {{"baseline", &gpuseq_baseline, [] { return true; }}};
#endif
constexpr int NUM_CHOICES = sizeof CHOICES / sizeof *CHOICES;

} // namespace

// Raised whenever the fields of a job or the functions below change.
EXPORT int gpuseq_abi() { return 1; }
EXPORT int gpuseq_job_bytes() { return (int)sizeof(Job); }

// Instruction set `number`, the widest first: its name, or null past the last.
EXPORT const char *gpuseq_name(int number) { return number >= 0 && number < NUM_CHOICES ? CHOICES[number].name : nullptr; }
EXPORT int gpuseq_runs_here(int number) { return CHOICES[number].runs(); }

EXPORT int64_t gpuseq_scratch_bytes(int number, const Job *job) { return CHOICES[number].engine->scratch_bytes(job); }
EXPORT void gpuseq_augment(int number, const Job *job, int64_t first, int64_t last, unsigned char *scratch)
{
    CHOICES[number].engine->augment(job, first, last, scratch);
}
