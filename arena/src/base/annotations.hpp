// What tools are told: lock annotations for clang's -Wthread-safety, and reads
// that ThreadSanitizer is not to report. Empty elsewhere.
#pragma once

#if defined(__clang__)
#define NDARENA_ATTRIBUTE(x) __attribute__((x))
#else
#define NDARENA_ATTRIBUTE(x)
#endif

#define NDARENA_CAPABILITY(name) NDARENA_ATTRIBUTE(capability(name))
#define NDARENA_SCOPED_CAPABILITY NDARENA_ATTRIBUTE(scoped_lockable)
#define NDARENA_GUARDED_BY(lock) NDARENA_ATTRIBUTE(guarded_by(lock))
#define NDARENA_REQUIRES(...) NDARENA_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define NDARENA_EXCLUDES(...) NDARENA_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define NDARENA_ACQUIRE(...) NDARENA_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define NDARENA_RELEASE(...) NDARENA_ATTRIBUTE(release_capability(__VA_ARGS__))
#define NDARENA_NO_ANALYSIS NDARENA_ATTRIBUTE(no_thread_safety_analysis)

#if defined(__SANITIZE_THREAD__)
#define NDARENA_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NDARENA_UNDER_TSAN 1
#endif
#endif

#if defined(NDARENA_UNDER_TSAN)
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}
#endif

namespace ndarena::base {

// While it lives, this thread reads what another may be writing, and finds out
// afterwards whether it was.
class [[maybe_unused]] overtaken_reads {
public:
#if defined(NDARENA_UNDER_TSAN)
    overtaken_reads() noexcept { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
    ~overtaken_reads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#else
    overtaken_reads() noexcept = default;
    ~overtaken_reads() = default;
#endif
    overtaken_reads(const overtaken_reads&) = delete;
    overtaken_reads& operator=(const overtaken_reads&) = delete;
};

}  // namespace ndarena::base
