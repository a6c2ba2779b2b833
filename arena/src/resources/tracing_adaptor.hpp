// Notes what goes through it in a trace.
#pragma once

#include "resources/resource.hpp"
#include "resources/trace.hpp"

namespace ndarena::resources {

class tracing_adaptor final : public resource {
public:
    tracing_adaptor(std::shared_ptr<trace> into, resource_ptr upstream,
                    std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)), into_(std::move(into)), upstream_(std::move(upstream)) {}

private:
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        void* p = upstream_->allocate(nbytes, alignment, zero);
        into_->note(p == nullptr ? trace_action::refuse : trace_action::allocate, p, nbytes,
                    into_->here());
        return p;
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        into_->note(trace_action::free, p, nbytes, 0);  // first: then it is somebody else's
        upstream_->deallocate(p, nbytes, alignment);
    }
    // Free before it moves, for the same reason; if it does not, it is there again.
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        const std::uint32_t stack = into_->here();
        into_->note(trace_action::free, p, old_bytes, 0);
        void* q = upstream_->reallocate(p, old_bytes, nbytes, alignment);
        if (q == nullptr) {
            into_->note(trace_action::allocate, p, old_bytes, stack);
            into_->note(trace_action::refuse, nullptr, nbytes, stack);
        } else {
            into_->note(trace_action::allocate, q, nbytes, stack);
        }
        return q;
    }

    std::shared_ptr<trace> into_;
    resource_ptr upstream_;
};

}  // namespace ndarena::resources
