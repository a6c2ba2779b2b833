// Fuzz target: a sequence of operations on one arena, against a model.
//
// The first two bytes choose where the arena lies and its alignment; each
// following byte an operation, with its arguments after it. Every promise of
// heap.hpp about sizes, contents, alignment, zeros and refusals is checked, and
// the invariants of the tables every few operations.
#include "model.hpp"
#include "places.hpp"

#include <memory>
#include <vector>

namespace ndarena::fuzz {
namespace {

using heap::heap;
using segment::open_mode;

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t capacity = 512 * kib;
constexpr std::uint64_t most_capacity = 4096 * kib;
constexpr std::uint64_t most_blocks = 400;
constexpr unsigned most_operations = 2000;

class session {
public:
    explicit session(input in) : in_(in) {
        const std::uint64_t place = in_.byte() % 8;
        const std::uint64_t alignment = std::uint64_t{64} << (in_.byte() % 4 * 3);
        switch (place) {
            default:
                memory_.emplace_back(capacity, MAP_PRIVATE | MAP_ANONYMOUS, -1);
                break;
            case 3:
                memory_.emplace_back(capacity, MAP_SHARED | MAP_ANONYMOUS, -1);
                break;
            case 4:
            case 5:  // two views of a file: two heaps that share it like two processes
                file_ = std::make_unique<memory_file>(capacity);
                for (std::uint64_t i = 4; i <= place; ++i) {
                    memory_.emplace_back(capacity, MAP_SHARED, file_->fd());
                }
                break;
            case 6:
            case 7: {
                auto made = unnamed_arena::create(capacity, alignment);
                file_ = std::make_unique<memory_file>(std::move(made.file));
                heaps_.push_back(std::move(made.h));
                break;
            }
        }
        for (const pages& memory : memory_) {
            auto options = over(memory);
            options.alignment = alignment;
            heaps_.push_back(opened(options));
        }
        for (const auto& h : heaps_) {
            h->set_purge(-1, ~std::uint64_t{0});  // time must not decide what happens
        }
    }

    void run() {
        for (unsigned i = 0; !in_.is_empty() && i < most_operations; ++i) {
            step();
            if (i % 32 == 31) {
                inspect();
            }
        }
        inspect();
        while (!model_.is_empty()) {
            deallocate(model_.pick(in_.byte()));
        }
        for (const auto& h : heaps_) {
            (void)h->trim();
            const auto s = h->stats();
            require(s.n_blocks == 0 && s.allocated == 0, "nothing is left when all is freed");
            require(s.warm_free == 0, "trim gives everything back");
            require(h->live_blocks() == 0, "live blocks are counted");
        }
        sound();
    }

private:
    static std::shared_ptr<heap> opened(const segment::segment_options& options) {
        auto h = heap::open(options);
        require(bool(h), "an arena can be opened", h ? std::string{} : h.err().message);
        return std::move(*h);
    }
    bool is_named() const { return memory_.empty(); }
    std::uint64_t offset_of(std::size_t owner, const void* p) const {
        return static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - heaps_[owner]->base());
    }

    void step() {
        const std::uint64_t what = in_.byte();
        const std::size_t owner = what / 32 % heaps_.size();
        switch (what % 32) {
            default:  // 0 to 9
                allocate(owner, in_.size(17), 0, what % 2 == 0);
                break;
            case 10:
            case 11:
            case 12:
                allocate(owner, in_.size(22), in_.byte(), what % 2 == 0);
                break;
            case 13:
            case 14:
            case 15:
            case 16:
            case 17:
                if (!model_.is_empty()) {
                    deallocate(model_.pick(in_.byte()));
                }
                break;
            case 18:
            case 19:
            case 20:
            case 21:
                reallocate();
                break;
            case 22:
                free_wrongly(owner);
                break;
            case 23:
                (void)heaps_[owner]->trim();
                break;
            case 24:
                heaps_[owner]->set_purge(in_.byte() % 2 == 0 ? -1 : 0, in_.size(20));
                break;
            case 25:
                grow(owner);
                break;
            case 26:
                reopen(owner);
                break;
            case 27:
                read();
                break;
            case 28:
                require(heaps_[owner]->reclaim() == 0, "what is alive is not reaped");
                break;
            case 29: {  // many alike: more records than a chunk has
                const std::uint64_t size = in_.size(9);
                for (std::uint64_t n = in_.byte() % 80; n > 0; --n) {
                    allocate(owner, size, 0, false);
                }
                break;
            }
            case 30: {  // every so many-th goes
                const std::uint64_t stride = 1 + in_.byte() % 4;
                for (auto it = model_.blocks().begin(); it != model_.blocks().end();) {
                    deallocate(it++);
                    for (std::uint64_t i = 0; i < stride && it != model_.blocks().end(); ++i) {
                        ++it;
                    }
                }
                break;
            }
            case 31:
                inspect();
                break;
        }
    }

    void allocate(std::size_t owner, std::uint64_t size, std::uint64_t alignment_choice,
                  bool zero) {
        if (model_.count() >= most_blocks) {
            return;
        }
        // Most of the highest choices are no powers of two.
        const std::uint64_t alignment =
            alignment_choice == 0
                ? 0
                : (std::uint64_t{1} << (alignment_choice % 24)) + (alignment_choice >= 240 ? 3 : 0);
        const bool valid = alignment == 0 || base::is_power_of_two(alignment);
        heap& h = *heaps_[owner];
        auto* p = static_cast<std::byte*>(h.allocate(size, alignment, zero));
        size = std::max<std::uint64_t>(size, 1);
        if (p == nullptr) {
            refused(h, size, alignment);
            return;
        }
        require(valid && alignment <= segment::max_alignment, "odd alignments are refused");
        const block b{p, size, std::max(alignment, h.alignment()), ++seed_, owner};
        model_.add(offset_of(owner, p), b);
        require(!zero || contents::are_zero(p, size), "zeroed blocks are zero");
        contents::write(b);
        require(h.size_of(p) == size && h.contains(p), "a block knows its size");
    }

    // A refusal is right if not even the largest free block was sure to do.
    void refused(heap& h, std::uint64_t size, std::uint64_t alignment) {
        require(!h.refusal().empty(), "a refusal has a reason");
        if (size > segment::max_capacity || alignment > segment::max_alignment ||
            (alignment != 0 && !base::is_power_of_two(alignment))) {
            return;
        }
        // Alignment may cost its own size, the class of the lists a 32nd, and a
        // new chunk of records is needed before the block itself.
        const std::uint64_t gap = std::max({alignment, h.alignment(), segment::format_page});
        const std::uint64_t tables = h.seg().geo().chunk_bytes() + 2 * segment::format_page;
        const std::uint64_t needed = tlsf::block_size_for(size) + gap;
        const std::uint64_t largest = h.stats().largest_free;
        require(needed + needed / 16 + tables > largest, "what fits is not refused",
                std::to_string(size) + " asked, " + std::to_string(largest) + " free");
    }

    void deallocate(std::map<std::uint64_t, block>::iterator it) {
        const block b = it->second;
        require(contents::are_kept(b, b.size), "a block keeps its contents");
        model_.blocks().erase(it);
        require(heaps_[b.owner]->deallocate(b.p), "a live block can be freed");
        require(!heaps_[b.owner]->deallocate(b.p), "and only once");
    }

    void reallocate() {
        const std::uint64_t size = in_.size(20);
        if (model_.is_empty()) {
            return;
        }
        const auto it = model_.pick(in_.byte());
        const block old = it->second;
        heap& h = *heaps_[old.owner];
        auto* p = static_cast<std::byte*>(h.reallocate(old.p, size));
        block now = old;
        now.size = std::max<std::uint64_t>(size, 1);
        if (p == nullptr) {
            refused(h, now.size, old.alignment);
            require(h.size_of(old.p) == old.size && contents::are_kept(old, old.size),
                    "a refused reallocation leaves the block");
            return;
        }
        model_.blocks().erase(it);
        now.p = p;
        block moved = old;
        moved.p = p;
        model_.add(offset_of(old.owner, p), now);
        require(contents::are_kept(moved, std::min(old.size, now.size)),
                "reallocation keeps the contents");
        now.seed = ++seed_;
        model_.blocks()[offset_of(old.owner, p)] = now;
        contents::write(now);
        require(h.size_of(p) == now.size, "a block knows its size");
    }

    // Frees of what is no block, or another heap's, change nothing.
    void free_wrongly(std::size_t owner) {
        heap& h = *heaps_[owner];
        int elsewhere = 0;
        require(!h.deallocate(nullptr) && !h.deallocate(&elsewhere) && !h.deallocate(h.base()),
                "only blocks are freed");
        const std::uint64_t offset = in_.number(3) % std::min(most_capacity, h.seg().mapped_size());
        const auto found = model_.blocks().find(offset);
        if (found != model_.blocks().end() && found->second.owner == owner) {
            return;
        }
        std::byte* p = h.base() + offset;
        require(!h.deallocate(p) && h.size_of(p) == 0 && h.reallocate(p, 100) == nullptr,
                "only blocks are freed");
    }

    void grow(std::size_t owner) {
        const std::uint64_t wanted =
            base::align_up(std::min(in_.size(22), most_capacity), segment::format_page);
        const std::uint64_t before = heaps_[owner]->capacity();
        const bool may = wanted <= before || is_named();
        require(bool(heaps_[owner]->grow(wanted)) == may, "only files grow");
        require(heaps_[owner]->capacity() == (may ? std::max(before, wanted) : before),
                "the capacity is what was asked for");
    }

    // The arena is closed, and opened again as after the end of its process.
    void reopen(std::size_t owner) {
        for (auto it = model_.blocks().begin(); it != model_.blocks().end();) {
            it = it->second.owner == owner ? model_.blocks().erase(it) : std::next(it);
        }
        const std::uint64_t before = heaps_[owner]->capacity();
        heaps_[owner].reset();
        heaps_[owner] =
            is_named() ? opened(in_file(file_->path(), in_.byte() % 2 == 0 ? open_mode::read_write
                                                                           : open_mode::append))
                       : opened(over(memory_[owner]));
        heaps_[owner]->set_purge(-1, ~std::uint64_t{0});
        require(heaps_[owner]->capacity() == before, "the capacity outlives its process");
        require(heaps_[owner]->live_blocks() == 0, "blocks do not");
        sound();
    }

    // A reader of the same file sees the same.
    void read() {
        if (file_ == nullptr || !is_named()) {
            return;
        }
        const auto reader = opened(in_file(file_->path(), open_mode::read));
        require(reader->check().empty(), "readers find nothing wrong");
        // In this order: asking the writer first gives back what it has waiting.
        const auto ours = heaps_.front()->blocks();
        const auto theirs = reader->blocks();
        require(std::equal(ours.begin(), ours.end(), theirs.begin(), theirs.end(),
                           [](const auto& a, const auto& b) {
                               return a.offset == b.offset && a.size == b.size &&
                                      a.state == b.state;
                           }),
                "readers see the blocks of the writers");
        require(reader->allocate(1, 0, false) == nullptr, "readers make no blocks");
    }

    void sound() {
        for (const auto& h : heaps_) {
            const auto findings = h->check();
            require(findings.empty(), "the tables are sound",
                    findings.empty() ? std::string{} : findings.front());
        }
    }

    void inspect() {
        sound();
        model_.verify();
        const auto s = heaps_.front()->stats();
        require(s.n_blocks == model_.count(), "blocks are counted",
                std::to_string(s.n_blocks) + " and " + std::to_string(model_.count()));
        require(s.allocated >= model_.bytes() && s.peak_allocated >= s.allocated &&
                    s.committed <= s.capacity && s.allocated + s.metadata <= s.committed,
                "bytes are counted");
        for (std::size_t i = 0; i < heaps_.size(); ++i) {
            require(heaps_[i]->live_blocks() == model_.count_of(i), "live blocks are counted");
        }
        if (!is_named() && file_ == nullptr) {
            require(s.processes == 1, "an anonymous arena is one process's");
        }
    }

    input in_;
    std::vector<pages> memory_;
    std::unique_ptr<memory_file> file_;
    std::vector<std::shared_ptr<heap>> heaps_;
    model model_;
    std::uint64_t seed_ = 0;
};

}  // namespace
}  // namespace ndarena::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ndarena::fuzz::session(ndarena::fuzz::input(data, size)).run();
    return 0;
}
