#include "resources/replay.hpp"

#include <chrono>

namespace ndarena::resources {

replay_result replay(resource& on, const std::vector<replay_step>& steps, std::uint32_t n_blocks) {
    struct place {
        void* p = nullptr;
        std::size_t nbytes = 0;
    };
    std::vector<place> blocks(n_blocks);
    replay_result result;
    const auto began = std::chrono::steady_clock::now();
    for (const replay_step& step : steps) {
        place& b = blocks[step.block];
        if (step.nbytes != 0) {
            b = {on.allocate(step.nbytes, least_alignment, false), step.nbytes};
            result.n_failed += b.p == nullptr ? 1 : 0;
        } else if (b.p != nullptr) {
            on.deallocate(b.p, b.nbytes, least_alignment);
            b.p = nullptr;
        }
    }
    const auto took = std::chrono::steady_clock::now() - began;
    result.nanoseconds = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(took).count());
    result.n_operations = steps.size();
    for (place& b : blocks) {
        if (b.p != nullptr) {
            on.deallocate(b.p, b.nbytes, least_alignment);
        }
    }
    return result;
}

}  // namespace ndarena::resources
