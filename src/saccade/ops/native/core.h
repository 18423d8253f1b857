// Shared by the sources of all operators: exported names, threads, scratch memory.
//
// Each operator is one .cpp file, compiled once per instruction set with -DSACCADE_ISA=<baseline|avx2|avx512>.
// Functions for Python are declared with SACCADE_EXPORT(name), which names them saccade_<isa>_<name>; the loader
// picks the instruction set and looks the names up. Rules that keep one library safe on every processor:
//   * everything else is in an anonymous namespace: a function with external linkage would exist once for all
//     instruction sets, and the linker might keep the AVX-512 copy;
//   * no std:: templates and no C++ exceptions, for the same reason; scratch memory comes from Scratch;
//   * arguments are pointers, int64_t and double only; the last one is the number of threads, an int64_t.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SACCADE_JOIN_(a, b, c) a##b##_##c
#define SACCADE_JOIN(a, b, c) SACCADE_JOIN_(a, b, c)
#define SACCADE_EXPORT(name) \
    extern "C" __attribute__((visibility("default"))) int SACCADE_JOIN(saccade_, SACCADE_ISA, name)

#define SACCADE_INLINE __attribute__((always_inline)) inline

// What an exported function returns; the loader turns all but OK into errors.
enum { SACCADE_OK = 0, SACCADE_NO_MEMORY = 1, SACCADE_UNSUPPORTED = 2 };

// Keep in step with _library.py.
enum { SACCADE_FLOAT32 = 0, SACCADE_FLOAT64 = 1, SACCADE_BFLOAT16 = 2, SACCADE_FLOAT16 = 3 };

// core.cpp: calls task(context, i, thread) for i in [0, num_tasks), assigned in order to at most
// num_threads threads (thread < num_threads). Which thread gets which task differs from run to run: results that must
// be reproducible belong to the task, not to the thread.
extern "C" void saccade_parallel(int64_t num_tasks, int num_threads, void (*task)(void*, int64_t, int),
                                 void* context);

namespace {

template <class F>
void call_task(void* context, int64_t i, int thread) {
    (*static_cast<F*>(context))(i, thread);
}

// parallel(n, threads, [&](int64_t task, int thread) { ... });
template <class F>
void parallel(int64_t num_tasks, int64_t num_threads, F&& body) {
    using Body = __typeof__(body);
    saccade_parallel(num_tasks, static_cast<int>(num_threads), call_task<__typeof__(*static_cast<Body*>(nullptr))>, &body);
}

// 64-byte aligned scratch memory, freed at the end of the scope; check ok().
class Scratch {
   public:
    explicit Scratch(int64_t bytes) : data_(nullptr) {
        if (posix_memalign(&data_, 64, static_cast<size_t>(bytes > 0 ? bytes : 64)) != 0) data_ = nullptr;
    }
    ~Scratch() { free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    bool ok() const { return data_ != nullptr; }
    template <class T>
    T* as() const { return static_cast<T*>(data_); }

   private:
    void* data_;
};

SACCADE_INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
SACCADE_INLINE int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
SACCADE_INLINE int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

}  // namespace
