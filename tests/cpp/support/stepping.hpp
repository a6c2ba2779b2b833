// A child that a test takes through an operation instruction by instruction.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <utility>

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ndarena::test {

// Keeps the calling thread, and whom it forks, on the processor it is on: each
// step is a switch between the two, four times slower from one to another.
class on_one_processor {
public:
    on_one_processor() {
        if (::sched_getaffinity(0, sizeof before_, &before_) == 0) {
            cpu_set_t here;
            CPU_ZERO(&here);
            CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &here);
            changed_ = ::sched_setaffinity(0, sizeof here, &here) == 0;
        }
    }
    ~on_one_processor() {
        if (changed_) {
            (void)::sched_setaffinity(0, sizeof before_, &before_);
        }
    }
    on_one_processor(const on_one_processor&) = delete;
    on_one_processor& operator=(const on_one_processor&) = delete;

private:
    cpu_set_t before_{};
    bool changed_ = false;
};

class stepped_child {
public:
    // Runs `prepare` freely and stops before `operate`.
    template <class Prepare, class Operate>
    stepped_child(Prepare&& prepare, Operate&& operate) {
        std::fflush(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            prepare();
            if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
                ::_exit(not_permitted);
            }
            ::raise(SIGSTOP);
            operate();
            ::_exit(0);
        }
        wait();
    }
    stepped_child(const stepped_child&) = delete;
    stepped_child& operator=(const stepped_child&) = delete;
    ~stepped_child() { kill(); }

    // Lets it run on to its next fork and goes on with the process that it
    // forks there; the forking one ends in its own time. False if it never forks.
    bool follow_fork() {
        static constexpr int forked = SIGTRAP | PTRACE_EVENT_FORK << 8;
        unsigned long heir = 0;
        if (!running() || ::ptrace(PTRACE_SETOPTIONS, pid_, nullptr, PTRACE_O_TRACEFORK) != 0 ||
            ::ptrace(PTRACE_CONT, pid_, nullptr, nullptr) != 0) {
            return false;
        }
        wait();
        if (!running() || status_ >> 8 != forked ||
            ::ptrace(PTRACE_GETEVENTMSG, pid_, nullptr, &heir) != 0) {
            return false;
        }
        forker_ = std::exchange(pid_, static_cast<pid_t>(heir));
        wait();
        (void)::ptrace(PTRACE_DETACH, forker_, nullptr, nullptr);
        return running();
    }

    // False where processes may not trace their children.
    bool permitted() const {
        return pid_ > 0 && !(WIFEXITED(status_) && WEXITSTATUS(status_) == not_permitted);
    }
    bool running() const { return WIFSTOPPED(status_); }
    bool finished() const { return WIFEXITED(status_) && WEXITSTATUS(status_) == 0; }
    // One instruction (one iteration of a repeated one); false when it has ended.
    bool step() {
        if (running() && ::ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr) == 0) {
            wait();
        }
        return running();
    }
    // The next step enters the kernel, where more may change than memory.
    bool is_at_system_call() const {
#if defined(__x86_64__)
        struct user_regs_struct registers {};
        if (!running() || ::ptrace(PTRACE_GETREGS, pid_, nullptr, &registers) != 0) {
            return false;
        }
        const long code = ::ptrace(PTRACE_PEEKTEXT, pid_, registers.rip, nullptr);
        return (code & 0xFFFF) == 0x050F;
#else
        return true;
#endif
    }
    void kill() {
        if (running()) {
            ::kill(pid_, SIGKILL);
            wait();
        }
        if (forker_ > 0) {
            int status = 0;
            while (::waitpid(forker_, &status, 0) < 0 && errno == EINTR) {
            }
            forker_ = -1;
        }
    }

private:
    static constexpr int not_permitted = 77;
    void wait() {
        while (::waitpid(pid_, &status_, __WALL) < 0 && errno == EINTR) {
        }
    }
    on_one_processor pinned_;  // before the fork
    pid_t pid_ = -1;
    pid_t forker_ = -1;
    int status_ = 0;
};

}  // namespace ndarena::test
