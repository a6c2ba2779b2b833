// All heaps of this process: one per segment and access, and the atfork
// handlers that take them through fork together.
#pragma once

#include "heap/heap.hpp"

#include <memory>
#include <vector>

namespace ndarena::heap {

class registry {
public:
    // Never destroyed: arrays may be freed after static destructors have run.
    static registry& instance() noexcept;

    result<std::shared_ptr<heap>> open(const segment_options& options, find_survivors survivors);
    std::shared_ptr<heap> find(const void* address) noexcept;
    void forget(const heap* h) noexcept;
    // The writable heap of a file or shared segment, by its session number.
    std::shared_ptr<heap> find_session(std::uint64_t session) noexcept;

private:
    struct entry {
        heap* raw;
        std::weak_ptr<heap> weak;
    };
    registry();
    std::vector<std::shared_ptr<heap>> everyone() noexcept;
    std::shared_ptr<heap> find_same(const segment_options& options, error& conflict);
    static void at_exit() noexcept;
    static void before_fork() noexcept;
    static void after_fork_in_parent() noexcept;
    static void after_fork_in_child() noexcept;

    platform::mutex opening_;  // held through open and through fork
    platform::mutex mutex_;    // guards entries_
    std::vector<entry> entries_;
    std::vector<std::shared_ptr<heap>> forking_;
    std::vector<std::shared_ptr<heap>> parked_;  // let go of outside mutex_
};

}  // namespace ndarena::heap
