// A child that a test takes through an operation instruction by instruction.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdio>

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ndarena::test {

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
    void kill() {
        if (running()) {
            ::kill(pid_, SIGKILL);
            wait();
        }
    }

private:
    static constexpr int not_permitted = 77;
    void wait() {
        while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
        }
    }
    pid_t pid_ = -1;
    int status_ = 0;
};

}  // namespace ndarena::test
