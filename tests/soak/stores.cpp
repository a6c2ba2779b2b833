// A process that dies at one of its own stores to a range of memory.
//
// The range is read-only meanwhile. Each store faults, is counted, is let through
// as a single step, and the one that was chosen is never made: the process is
// killed in its place. A child born meanwhile goes on counting by itself.
// Linux on x86-64, one thread.
#include <cstdint>

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <csignal>

namespace {

constexpr greg_t trap_flag = 0x100;

struct watched_range {
    char* begin = nullptr;
    std::size_t size = 0;
    std::uint64_t left = 0;          // stores until the last one
    std::int64_t* deaths = nullptr;  // where the end is noted
};
watched_range watched;

void protect(int access) {
    if (::mprotect(watched.begin, watched.size, access) != 0) {
        ::_exit(125);
    }
}

void on_store(int signal, siginfo_t* info, void* context) {
    const auto* at = static_cast<char*>(info->si_addr);
    if (watched.left == 0 || at < watched.begin || at >= watched.begin + watched.size) {
        (void)::signal(signal, SIG_DFL);  // a fault as any other: it happens again
        return;
    }
    if (--watched.left == 0) {
        __atomic_fetch_add(watched.deaths, 1, __ATOMIC_RELAXED);
        (void)::kill(::getpid(), SIGKILL);
    }
    protect(PROT_READ | PROT_WRITE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= trap_flag;
}

void after_store(int /*signal*/, siginfo_t* /*info*/, void* context) {
    protect(PROT_READ);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~trap_flag;
}

void handle(int signal, void (*handler)(int, siginfo_t*, void*)) {
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO;
    (void)::sigaction(signal, &action, nullptr);
}

}  // namespace

extern "C" {

// From here on the `number`-th store to the pages at `begin` is this process's
// end, and adds one to `*deaths`.
void die_at_store(void* begin, std::size_t size, std::uint64_t number, std::int64_t* deaths) {
    watched = {static_cast<char*>(begin), size, number, deaths};
    handle(SIGSEGV, on_store);
    handle(SIGTRAP, after_store);
    protect(PROT_READ);
}

// It has lived to see this; the stores that were left.
std::uint64_t survive() {
    protect(PROT_READ | PROT_WRITE);
    (void)::signal(SIGSEGV, SIG_DFL);
    (void)::signal(SIGTRAP, SIG_DFL);
    const std::uint64_t left = watched.left;
    watched = {};
    return left;
}

}  // extern "C"
