// The public face of the library.
#include "directory/store.hpp"

#include <ndarena/arena.hpp>

namespace ndarena {
namespace {

heap::segment_options options_for(heap::segment_kind kind, const std::string& path, mode how,
                                  const arena_options& chosen) {
    heap::segment_options o;
    o.kind = kind;
    o.path = path;
    o.mode = static_cast<heap::open_mode>(how);
    o.capacity = chosen.capacity;
    o.alignment = chosen.alignment;
    o.perm = chosen.perm;
    return o;
}
static_assert(static_cast<int>(mode::append) == static_cast<int>(heap::open_mode::append));
static_assert(static_cast<int>(mode::exclusive) == static_cast<int>(heap::open_mode::exclusive));

}  // namespace

result<arena> arena::open(const std::string& path, mode how, const arena_options& options) {
    auto h = directory::open_heap(options_for(heap::segment_kind::file, path, how, options));
    if (!h) {
        return h.err();
    }
    return arena(std::move(*h));
}

result<arena> arena::shared(const std::string& name, mode how, const arena_options& options) {
    auto h = directory::open_heap(options_for(heap::segment_kind::shared, name, how, options));
    if (!h) {
        return h.err();
    }
    return arena(std::move(*h));
}

result<arena> arena::scratch(const std::string& directory, const arena_options& options) {
    auto h = directory::open_heap(
        options_for(heap::segment_kind::scratch, directory, mode::exclusive, options));
    if (!h) {
        return h.err();
    }
    return arena(std::move(*h));
}

result<arena> arena::over(void* buffer, std::size_t size, bool overwrite,
                          const arena_options& options) {
    auto o = options_for(heap::segment_kind::buffer, {}, mode::append, options);
    o.buffer = buffer;
    o.buffer_size = size;
    o.format_buffer = overwrite;
    auto h = directory::open_heap(o);
    if (!h) {
        return h.err();
    }
    return arena(std::move(*h));
}

void* arena::allocate(std::size_t nbytes, std::size_t alignment) noexcept {
    return heap_->allocate(nbytes, alignment, false);
}
void* arena::allocate_zeroed(std::size_t nbytes, std::size_t alignment) noexcept {
    return heap_->allocate(nbytes, alignment, true);
}
void* arena::reallocate(void* p, std::size_t nbytes) noexcept {
    return heap_->reallocate(p, nbytes);
}
bool arena::deallocate(void* p) noexcept { return heap_->deallocate(p); }
bool arena::owns(const void* p) const noexcept { return heap_->contains(p); }
std::size_t arena::size_of(const void* p) const noexcept { return heap_->size_of(p); }
std::string arena::refusal() const { return heap_->refusal(); }
std::vector<std::string> arena::check() const { return heap_->check(); }
std::uint64_t arena::trim() noexcept { return heap_->trim(); }
result<void> arena::grow(std::uint64_t capacity) { return heap_->grow(capacity); }
std::uint64_t arena::reclaim() noexcept { return heap_->reclaim(); }
result<void> arena::unlink() { return heap_->unlink(); }

arena_stats arena::stats() const noexcept {
    const heap::statistics s = heap_->stats();
    return {s.capacity,      s.committed, s.allocated, s.peak_allocated, s.largest_free, s.n_blocks,
            s.n_free_blocks, s.resident,  s.oom_count, s.processes,      s.in_transit};
}

}  // namespace ndarena
