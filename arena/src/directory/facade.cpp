// The public face of the names.
#include "directory/store.hpp"

#include <ndarena/directory.hpp>

#include <utility>

namespace ndarena {
namespace {

directory::store& names_of(const arena& owner) {
    return directory::store::of(*owner.implementation());
}

directory::entry entry_of(const array_type& type, std::uint64_t nbytes) {
    directory::entry e;
    e.nbytes = nbytes;
    e.fortran = type.fortran;
    e.shape = type.shape;
    e.descr = type.descr;
    return e;
}

// Keeps a block, or a reader's view of it, and the arena that it lies in.
struct hold {
    ~hold() {
        if (pin) {
            pin.reset();
        } else if (data != nullptr) {
            (void)heap->deallocate(data);
        }
    }
    hold() = default;
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;

    std::shared_ptr<heap::heap> heap;
    void* data = nullptr;
    directory::reader_pin pin;
};

}  // namespace

result<std::uint64_t> array_directory::count() const { return names_of(arena_).count(); }

result<std::vector<std::string>> array_directory::names(std::string_view prefix) const {
    return names_of(arena_).list(prefix, std::nullopt, ~std::size_t{0});
}

result<named_array> array_directory::get(std::string_view name) const {
    auto held = std::make_shared<hold>();
    held->heap = arena_.implementation();
    directory::entry e;
    bool found = false;
    auto data = names_of(arena_).hold(name, e, found, held->pin);
    if (!data) {
        return data.err();
    }
    if (!found) {
        return error{errc::not_found, 0, "there is no array named \"" + std::string(name) + '"',
                     arena_.implementation()->seg().path()};
    }
    held->data = *data;
    named_array array;
    array.data_ = *data;
    array.nbytes_ = e.nbytes;
    array.type_ = {std::move(e.descr), std::move(e.shape), e.fortran};
    array.attrs_ = std::move(e.attrs);
    array.hold_ = std::move(held);
    return array;
}

result<void> array_directory::put(std::string_view name, const array_type& type, const void* data,
                                  std::uint64_t nbytes) {
    heap::heap& h = *arena_.implementation();
    void* block = nullptr;
    if (nbytes != 0) {
        block = h.allocate(nbytes, 0, false);
        if (block == nullptr && h.has_unflushed_names() && h.flush()) {
            block = h.allocate(nbytes, 0, false);
        }
        if (block == nullptr) {
            return error{h.seg().writable() ? errc::no_memory : errc::read_only, 0, h.refusal(),
                         h.seg().path()};
        }
        h.fill(block, data, nbytes);
    }
    auto done = names_of(arena_).put(name, entry_of(type, nbytes), block, true);
    if (block != nullptr) {
        (void)h.deallocate(block);
    }
    return done;
}

result<void> array_directory::put_block(std::string_view name, const array_type& type,
                                        void* block) {
    heap::heap& h = *arena_.implementation();
    return names_of(arena_).put(name, entry_of(type, h.size_of(block)), block, true);
}

result<bool> array_directory::erase(std::string_view name) { return names_of(arena_).erase(name); }
result<bool> array_directory::rename(std::string_view from, std::string_view to) {
    return names_of(arena_).rename(from, to);
}
result<bool> array_directory::set_attrs(std::string_view name, std::string_view attrs) {
    return names_of(arena_).set_attrs(name, attrs);
}
result<void> array_directory::begin(std::uint64_t timeout_ms) {
    return names_of(arena_).begin(timeout_ms);
}
result<void> array_directory::commit() { return names_of(arena_).commit(); }
void array_directory::abort() noexcept { names_of(arena_).abort(); }
result<void> array_directory::flush() { return arena_.implementation()->flush(); }
result<void> array_directory::refresh() { return names_of(arena_).refresh(); }
std::vector<std::string> array_directory::check() const { return names_of(arena_).check(); }

}  // namespace ndarena
