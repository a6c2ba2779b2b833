#include "numpy/api.hpp"

#include "numpy/numpy.hpp"

#include <algorithm>

namespace ndarena::numpy {
namespace {

struct roll {
    platform::mutex mutex;
    std::vector<std::weak_ptr<lease>> leases;
};

// Never destroyed: leases may go after static destructors have run.
roll& all_leases() {
    static auto* the_roll = new roll;
    return *the_roll;
}

}  // namespace

lease::lease(std::shared_ptr<heap::heap> h, void* view) noexcept
    : heap_(std::move(h)), view_(view) {}

lease::~lease() {
    heap_.reset();  // while the buffer is still there
    if (view_ != nullptr) {
        auto* view = static_cast<Py_buffer*>(view_);
        PyBuffer_Release(view);
        delete view;
    }
}

void lease::enroll(const std::shared_ptr<lease>& made) {
    roll& all = all_leases();
    platform::lock_guard guard(all.mutex);
    all.leases.erase(std::remove_if(all.leases.begin(), all.leases.end(),
                                    [](const auto& weak) { return weak.expired(); }),
                     all.leases.end());
    all.leases.push_back(made);
}

std::shared_ptr<lease> lease::find(const void* address) {
    // Collected first, so that none is destroyed under the lock.
    std::vector<std::shared_ptr<lease>> candidates;
    roll& all = all_leases();
    {
        platform::lock_guard guard(all.mutex);
        for (const auto& weak : all.leases) {
            if (auto held = weak.lock()) {
                candidates.push_back(std::move(held));
            }
        }
    }
    for (auto& held : candidates) {
        if (held->heap().contains(address)) {
            return held;
        }
    }
    return nullptr;
}

}  // namespace ndarena::numpy
