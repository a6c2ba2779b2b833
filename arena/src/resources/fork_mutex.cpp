#include "resources/fork_mutex.hpp"

#include <pthread.h>

namespace ndarena::resources {

// Never destroyed: memory is freed until the process has ended. Its own mutex is
// held across a fork, so that the list stands still.
struct fork_mutex::registry {
    registry() {
        (void)::pthread_atfork(
            []() NDARENA_NO_ANALYSIS {
                all().list.lock();
                for (fork_mutex* m = all().first; m != nullptr; m = m->next_) {
                    m->word_.lock();
                }
            },
            []() NDARENA_NO_ANALYSIS {
                for (fork_mutex* m = all().first; m != nullptr; m = m->next_) {
                    m->word_.unlock();
                }
                all().list.unlock();
            },
            []() NDARENA_NO_ANALYSIS {
                for (fork_mutex* m = all().first; m != nullptr; m = m->next_) {
                    m->word_.reset();
                }
                all().list.reset();
            });
    }
    platform::mutex list;
    fork_mutex* first = nullptr;
};

fork_mutex::registry& fork_mutex::all() noexcept {
    static auto* the_registry = new registry;
    return *the_registry;
}

fork_mutex::fork_mutex() noexcept {
    registry& r = all();
    platform::lock_guard guard(r.list);
    next_ = r.first;
    if (next_ != nullptr) {
        next_->previous_ = this;
    }
    r.first = this;
}

fork_mutex::~fork_mutex() {
    registry& r = all();
    platform::lock_guard guard(r.list);
    (previous_ != nullptr ? previous_->next_ : r.first) = next_;
    if (next_ != nullptr) {
        next_->previous_ = previous_;
    }
}

}  // namespace ndarena::resources
