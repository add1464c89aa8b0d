; Dump what GIMP reads in an image: (dump-image "file" "folder") writes folder/document.txt, one line per node, bottom to
; top (depth, kind, x, y, width, height, visible, opacity, mode, PNG, name), and each layer's pixels as folder/N.png.

(define dump-count 0)

(define (dump-node port folder depth item)
  (let* ((group (= TRUE (car (gimp-item-is-group item))))
         (offsets (gimp-drawable-offsets item))
         (file (string-append (number->string dump-count) ".png")))
    (if group
        (dump-nodes port folder (+ depth 1) (cadr (gimp-item-get-children item)) (car (gimp-item-get-children item))))
    (for-each
      (lambda (value) (display value port) (display "\t" port))
      (list depth (if group "group" "layer") (car offsets) (cadr offsets)
            (car (gimp-drawable-width item)) (car (gimp-drawable-height item))
            (car (gimp-item-get-visible item)) (car (gimp-layer-get-opacity item)) (car (gimp-layer-get-mode item))
            (if group "-" file)))
    (display (car (gimp-item-get-name item)) port)
    (newline port)
    (if (not group)
        (let* ((image (car (gimp-image-new (car (gimp-drawable-width item)) (car (gimp-drawable-height item)) RGB)))
               (copy (car (gimp-layer-new-from-drawable item image))))
          (set! dump-count (+ dump-count 1))
          (gimp-image-insert-layer image copy 0 0)
          (gimp-layer-set-offsets copy 0 0)
          (gimp-layer-set-opacity copy 100)
          (file-png-save RUN-NONINTERACTIVE image copy (string-append folder "/" file) file 0 1 0 0 0 1 1)
          (gimp-image-delete image)))))

(define (dump-nodes port folder depth items count)
  (let loop ((index (- count 1)))
    (if (>= index 0)
        (begin
          (dump-node port folder depth (vector-ref items index))
          (loop (- index 1))))))

(define (dump-image file folder)
  (let* ((image (car (gimp-file-load RUN-NONINTERACTIVE file file)))
         (port (open-output-file (string-append folder "/document.txt")))
         (layers (gimp-image-get-layers image)))
    (dump-nodes port folder 0 (cadr layers) (car layers))
    (close-output-port port)
    (let ((flat (car (gimp-image-merge-visible-layers image CLIP-TO-IMAGE))))
      (gimp-layer-resize-to-image-size flat)
      (file-png-save RUN-NONINTERACTIVE image flat (string-append folder "/merged.png") "merged.png" 0 1 0 0 0 1 1))))
