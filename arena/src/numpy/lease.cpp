#include "numpy/api.hpp"

#include "numpy/numpy.hpp"

#include <algorithm>

namespace ndarena::numpy {
namespace {

struct roll {
    platform::mutex mutex;
    std::vector<std::weak_ptr<lease>> leases;
};

struct waiting_buffers {
    platform::mutex mutex;
    std::vector<Py_buffer*> views;
};

waiting_buffers& the_waiting() {
    static auto* waiting = new waiting_buffers;
    return *waiting;
}

int release_from_main_thread(void* /*unused*/) {
    release_waiting_buffers();
    return 0;
}

// Never destroyed: leases may go after static destructors have run.
roll& all_leases() {
    static auto* the_roll = new roll;
    return *the_roll;
}

}  // namespace

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

std::shared_ptr<lease> lease::of(std::shared_ptr<heap::heap> h) {
    if (auto known = find(h->base())) {
        return known;
    }
    auto made = std::make_shared<lease>(std::move(h));
    enroll(made);
    return made;
}

std::shared_ptr<void> hold_buffer(void* view) {
    return {view, [](void* p) noexcept {
                auto* buffer = static_cast<Py_buffer*>(p);
                if (Py_IsInitialized() == 0) {
                    return;
                }
                if (PyGILState_Check() != 0) {
                    PyBuffer_Release(buffer);
                    delete buffer;
                    return;
                }
                {
                    waiting_buffers& waiting = the_waiting();
                    platform::lock_guard guard(waiting.mutex);
                    waiting.views.push_back(buffer);
                }
                (void)Py_AddPendingCall(&release_from_main_thread, nullptr);
            }};
}

void release_waiting_buffers() noexcept {
    std::vector<Py_buffer*> views;
    {
        waiting_buffers& waiting = the_waiting();
        platform::lock_guard guard(waiting.mutex);
        views.swap(waiting.views);
    }
    for (Py_buffer* view : views) {
        PyBuffer_Release(view);
        delete view;
    }
}

}  // namespace ndarena::numpy
