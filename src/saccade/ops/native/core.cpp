// Threads, and which instruction sets this processor has. Compiled once, for the baseline.

#include "core.h"

#include <thread>

namespace {

struct Job {
    int64_t num_tasks;
    int64_t next;
    int next_thread;
    void (*task)(void*, int64_t, int);
    void* context;
};

void work(void* pointer) {
    Job* job = static_cast<Job*>(pointer);
    int thread = __atomic_fetch_add(&job->next_thread, 1, __ATOMIC_RELAXED);
    for (;;) {
        int64_t i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (i >= job->num_tasks) return;
        job->task(job->context, i, thread);
    }
}

using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
Parallel pool = nullptr;

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Use PyTorch's thread pool: pass it the GOMP_parallel of the OpenMP runtime that PyTorch loaded. Two
// pools would fight for the cores, since the idle threads of each keep spinning for a while. Without it, each call
// starts its own threads.
EXPORT void saccade_use_pool(void* gomp_parallel) { pool = reinterpret_cast<Parallel>(gomp_parallel); }

EXPORT void saccade_parallel(int64_t num_tasks, int num_threads, void (*task)(void*, int64_t, int),
                             void* context) {
    Job job{num_tasks, 0, 0, task, context};
    if (num_threads > num_tasks) num_threads = static_cast<int>(num_tasks);
    if (num_threads <= 1) {
        work(&job);
    } else if (pool != nullptr) {
        pool(work, &job, static_cast<unsigned>(num_threads), 0);
    } else {
        std::thread* others = new std::thread[static_cast<size_t>(num_threads) - 1];
        for (int i = 0; i + 1 < num_threads; ++i) others[i] = std::thread(work, &job);
        work(&job);
        for (int i = 0; i + 1 < num_threads; ++i) others[i].join();
        delete[] others;
    }
}

// 2: AVX-512 (F, BW, DQ, VL), 1: AVX2 with FMA and F16C, 0: neither.
EXPORT int saccade_processor_level() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return avx2 && avx512 ? 2 : avx2 ? 1 : 0;
#else
    return 0;
#endif
}
