// Lock annotations for clang's -Wthread-safety; empty elsewhere.
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
